"""Sessions: a walk through a world goes into a bag, and is walked again from it, frame by frame the same.

A message on `session` (JSON in a std_msgs/String) says which world it was; every one of them stands for a reset, or
for going back to a snapshot, whose name was written on `session_snapshot` when it was taken.
`camera/pose_delta` holds what was given to `World.step`, exactly: one message a block, or one for each frame of it,
stamped with the time of the frame before. Clock modes follow on `time_mode` in the same way, where one was given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.bags import messages
from inspatio_sim.bags.files import Bag, BagWriter, typestore
from inspatio_sim.cli.terminal import ProgressCallback
from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.generators import generator_by_name, name_of
from inspatio_sim.mapping import MapConfig
from inspatio_sim.motion.camera import Array, PoseDelta, inverse, se3_log
from inspatio_sim.reconstruction import Recipe
from inspatio_sim.reference.cache import cached_reference
from inspatio_sim.reference.files import META_NAME
from inspatio_sim.reference.reference import ClockMode, Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.walks.walk import Step
from inspatio_sim.world.world import World, WorldConfig, WorldSnapshot

FORMAT = "inspatio-sim session 1"
SESSION, SNAPSHOT, MOTION, TIME_MODE = "session", "session_snapshot", "camera/pose_delta", "time_mode"
COLOR, INFO, DEPTH = "camera/image_raw", "camera/camera_info", "camera/depth/image_rect_raw"
ODOM, TF, TF_STATIC, CLOCK = "odom", "tf", "tf_static", "clock"
DEMO_FRAMES, DEMO_FPS, DEMO_SIZE_PX = 48, 12.0, (96, 160)


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Where a world comes from: enough to make its Reference again."""

    video: tuple[str, ...] = ()  # as `read_clip` takes it, or a folder that `Reference.save` wrote; empty: demo room
    size_px: tuple[int, int] | None = None  # (height, width); None: the clip's own
    start_frame: int = 0
    max_frames: int | None = None
    every: int = 1
    fps: float | None = None
    reconstruct: dict[str, Any] = field(default_factory=dict)  # see `Recipe.of`

    def reference(self, progress: ProgressCallback | None = None) -> Reference:
        """Read and reconstruct the clip, or take what an earlier run has kept of that.

        Raises:
            InputError: the clip cannot be read, or not with these options.
        """
        recipe = Recipe.of(self.reconstruct)
        if not self.video:
            if self.start_frame:
                raise InputError(f"start_frame={self.start_frame}: want 0 without a clip: the demo room has no start")
            clip = demo_clip(self.max_frames or DEMO_FRAMES, self.size_px or DEMO_SIZE_PX, self.fps or DEMO_FPS)
            return recipe.reconstruct(clip)
        paths = [Path(path) for path in self.video]
        source = paths[0] if len(paths) == 1 else paths
        if len(paths) == 1 and (paths[0] / META_NAME).is_file():
            return Reference.load(paths[0])

        def make() -> Reference:
            clip = read_clip(
                source,
                size_px=self.size_px,
                start_frame=self.start_frame,
                max_frames=self.max_frames,
                every=self.every,
                fps=self.fps,
            )
            return recipe.reconstruct(clip, progress)

        files = clip_files(source)
        if folder := self.reconstruct.get("model_folder"):
            files += sorted(path for path in Path(folder).glob("*") if path.is_file())
        return cached_reference(files, {"session": True, **asdict(replace(self, video=()))}, make)[0]


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that a walk depends on beside its commands, and where in time it begins."""

    clip: ClipSource
    fingerprint: str  # of the Reference
    generator: str
    generator_options: dict[str, Any]
    prompt: str
    config: dict[str, Any]  # of `WorldConfig`
    seed: int
    T_world_camera: list[list[float]] | None = None  # where the camera starts; None: at the clip's first camera
    start_s: float = 0.0  # stamp of the moment that the world calls 0 s
    resumes: str | None = None  # no reset: the world goes back to the snapshot of this name, and shows its frame again

    @classmethod
    def of(
        cls,
        world: World,
        clip: ClipSource,
        *,
        start_s: float = 0.0,
        T_world_camera: Array | None = None,
        resumes: str | None = None,
    ) -> Session:
        """The session that begins when this world is reset, or goes back to a snapshot, with the seed it has then."""
        return cls(
            clip=replace(clip, video=tuple(str(Path(path).resolve()) for path in clip.video)),
            fingerprint=world.reference.fingerprint(),
            generator=name_of(world.generator),
            generator_options=world.generator.options,
            prompt=world.prompt,
            config=asdict(world.config),
            seed=world.seed,
            T_world_camera=None if T_world_camera is None else np.asarray(T_world_camera, np.float64).tolist(),
            start_s=start_s,
            resumes=resumes,
        )

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Session:
        """Raises InputError where the text is no session."""
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise InputError(f"format is not {FORMAT!r}")
            clip = dict(values.pop("clip"))
            size_px = clip.pop("size_px")
            source = ClipSource(
                **{**clip, "video": tuple(clip["video"]), "size_px": tuple(size_px) if size_px else None}
            )
            session = cls(clip=source, **values)
            if not (type(session.seed) is int and abs(session.start_s) < 1e9 and isinstance(session.prompt, str)):
                raise InputError("seed, start_s or prompt is not what it should be")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"topic {SESSION}: damaged, or of another version ({error})") from error
        return session

    def world(self, progress: ProgressCallback | None = None) -> World:
        """The world again, not reset.

        Raises:
            InputError: the clip is not what it was, or the generator cannot be made.
        """
        try:
            config = dict(self.config)
            config["map"] = MapConfig(**config["map"])
            generator = generator_by_name(self.generator, **self.generator_options)
            reference = self.clip.reference(progress)
            if reference.fingerprint() != self.fingerprint:
                where = ", ".join(self.clip.video) or "the demo room"
                raise InputError(f"clip {where}: not what the session was recorded from, or reconstructed otherwise")
            return World(
                reference, generator=generator, seed=self.seed, prompt=self.prompt, config=WorldConfig(**config)
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"topic {SESSION}: damaged ({error})") from error


# Recording


def record_session(
    world: World,
    steps: Sequence[Step],
    writer: BagWriter,
    clip: ClipSource,
    *,
    camera_height_m: float | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Walk through a world and write what a robot with that camera would have published.

    Args:
        world: a world; it is reset here.
        steps: the motions.
        writer: an open bag.
        clip: where the world came from.
        camera_height_m: of the camera over base_link; None: over the floor that the first frames show.
        progress: called as `progress(what, share_done)`.

    Returns:
        Numbers for a report, JSON-ready.
    """
    log = SessionLog(writer)
    log.begin(Session.of(world, clip), 0)
    log.write(TF_STATIC, messages.transforms({(messages.LINK, messages.OPTICAL): messages.T_LINK_OPTICAL}, 0), 0)
    camera: _Camera | None = None
    end_ns = num_collisions = 0
    for step_idx in range(len(steps) + 1):
        if step_idx == 0:
            observation = world.reset()
            height_m = _floor_below_m(world, observation) if camera_height_m is None else camera_height_m
            camera = _Camera(world=world, log=log, height_m=height_m)
        else:
            step = steps[step_idx - 1]
            log.command(step.delta, step.clock, end_ns)
            observation = world.step(step.delta, step.clock)
        assert camera is not None
        end_ns = camera.publish(observation)
        num_collisions += observation.has_collided
        if progress:
            progress("recording", (step_idx + 1) / (len(steps) + 1))
    return {
        "num_frames": camera.num_frames if camera else 0,
        "duration_s": round(end_ns * 1e-9, 4),
        "num_collisions": num_collisions,
        "camera_height_m": round(camera.height_m, 4) if camera else None,
        "num_messages": writer.num_messages,
    }


class SessionLog:
    """Writes what `replay_session` needs.

    Args:
        writer: an open bag.
        namespace: of all topics, such as /robot1.
    """

    def __init__(self, writer: BagWriter, namespace: str = "/") -> None:
        self._writer = writer
        self._prefix = f"{namespace.rstrip('/')}/"

    def begin(self, session: Session, time_ns: int) -> None:
        """The world was reset, or went back to a snapshot."""
        self.write(SESSION, messages.text(session.to_json()), time_ns)

    def command(
        self,
        motion: PoseDelta | Sequence[PoseDelta],
        clock: ClockMode | Sequence[ClockMode | None] | None,
        time_ns: int,
    ) -> None:
        """What `World.step` is called with; `time_ns` is the stamp of the frame before, another one for every step."""
        for delta in [motion] if isinstance(motion, PoseDelta) else motion:
            self.write(MOTION, messages.motion(delta, time_ns), time_ns)
        modes = [] if clock is None else [clock] if isinstance(clock, str) else clock
        for mode in modes:
            self.write(TIME_MODE, messages.text(mode or ""), time_ns)

    def snapshot(self, name: str, time_ns: int) -> None:
        """The world's state is kept under this name."""
        self.write(SNAPSHOT, messages.text(name), time_ns)

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """Any other message of rosbags."""
        msgtype = message.__msgtype__
        data = typestore().serialize_cdr(message, msgtype)
        self._writer.write(f"{self._prefix}{topic}", msgtype, data, time_ns)


@dataclass(kw_only=True)
class _Camera:
    """Writes frames one by one, as the camera of a robot publishes them."""

    world: World
    log: SessionLog
    height_m: float
    num_frames: int = 0
    _T_map_base: Array | None = None

    def publish(self, observation: Observation) -> int:
        """All topics for each frame of a block; returns the time of the last one, in ns."""
        time_ns = 0
        for idx, T_world_camera in enumerate(observation.T_world_camera):
            time_ns = round(float(observation.time_s[idx]) * 1e9)
            T_map_link = messages.T_MAP_WORLD @ T_world_camera @ inverse(messages.T_LINK_OPTICAL)
            T_map_base, T_base_link = messages.level_base(T_map_link, self.height_m)
            T_before = T_map_base if self._T_map_base is None else self._T_map_base
            twist = se3_log(inverse(T_before) @ T_map_base) * self.world.reference.fps
            tree = {
                (messages.MAP, messages.ODOM): np.eye(4),
                (messages.ODOM, messages.BASE): T_map_base,
                (messages.BASE, messages.LINK): T_base_link,
            }
            info = messages.camera_info(self.world.reference.intrinsics, time_ns, messages.OPTICAL)
            for topic, message in (
                (CLOCK, messages.clock(time_ns)),
                (TF, messages.transforms(tree, time_ns)),
                (ODOM, messages.odometry(T_map_base, twist, time_ns)),
                (INFO, info),
                (COLOR, messages.color_image(observation.rgb_u8[idx], time_ns, messages.OPTICAL)),
                (DEPTH, messages.depth_image(observation.depth_m[idx], time_ns, messages.OPTICAL)),
            ):
                self.log.write(topic, message, time_ns)
            self._T_map_base = T_map_base
            self.num_frames += 1
        return time_ns


def _floor_below_m(world: World, observation: Observation) -> float:
    """Height of the camera over the floor; 0 where none is seen."""
    floor_y_m = world.map.floor_y_m()
    height_m = 0.0 if floor_y_m is None else floor_y_m - float(observation.T_world_camera[0, 1, 3])
    return height_m if 0 < height_m < 10 else 0.0


# Replaying


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first frame that is not as it was."""

    frame_idx: int  # of the recorded images
    time_s: float
    recorded_u8: NDArray[np.uint8]  # [H, W, 3]
    replayed_u8: NDArray[np.uint8] | None  # None: the replay makes no frame of this time


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of walking a session again."""

    num_frames: int  # made by the replay, up to the difference
    num_compared: int
    num_not_recorded: int  # made, but not in the bag (a cut recording, or nobody subscribed)
    sha256: str  # of all compared frames
    difference: Difference | None


def session_prefix(bag: Bag) -> str | None:
    """The namespace of the first session in a bag, such as `/` or `/robot1/`; None where there is none."""
    for name, topic in bag.topics.items():
        if name.rsplit("/", 1)[-1] == SESSION and topic.msgtype == messages.STRING and topic.num_messages:
            return name[: -len(SESSION)]
    return None


def replay_session(bag: Bag, progress: ProgressCallback | None = None) -> Replay:
    """Make the world of a recorded session again, give it the same commands, and compare the frames by SHA-256.

    Stops at the first difference.

    Raises:
        InputError: no session in this bag, its world cannot be made again, or no image was recorded.
    """
    prefix = session_prefix(bag)
    if prefix is None:
        raise InputError(f"{bag.path}: no topic {SESSION}: {_there(bag)}: want a bag of `bag record` or of the node")
    if f"{prefix}{COLOR}" not in bag.topics:
        raise InputError(f"{bag.path}: no topic {prefix}{COLOR} to compare with: {_there(bag)}")
    walks = list(_walks(bag, prefix))
    images = _recorded(bag, f"{prefix}{COLOR}")
    image = next(images, None)
    if image is None:
        raise InputError(f"{bag.path}: topic {prefix}{COLOR} has no images: there is nothing to compare with")
    num_frames = num_compared = num_not_recorded = 0
    digest = hashlib.sha256()
    difference: Difference | None = None
    for frame in _replayed(walks, progress):
        num_frames += 1
        if image is None or image.time_ns > frame.time_ns + frame.tolerance_ns:
            num_not_recorded += 1
            continue
        is_of_now = image.time_ns >= frame.time_ns - frame.tolerance_ns
        if not is_of_now or frame.sha256 != image.sha256:
            difference = _difference(num_compared, image, frame.rgb_u8 if is_of_now else None)
            break
        digest.update(frame.sha256)
        num_compared += 1
        image = next(images, None)
    if difference is None and image is not None:
        difference = _difference(num_compared, image, None)
    return Replay(
        num_frames=num_frames,
        num_compared=num_compared,
        num_not_recorded=num_not_recorded,
        sha256=digest.hexdigest(),
        difference=difference,
    )


def _difference(frame_idx: int, image: _Frame, replayed_u8: NDArray[np.uint8] | None) -> Difference:
    time_s = image.time_ns * 1e-9
    return Difference(frame_idx=frame_idx, time_s=time_s, recorded_u8=image.rgb_u8, replayed_u8=replayed_u8)


@dataclass(frozen=True, kw_only=True)
class _Command:
    """What `World.step` was called with."""

    motions: list[PoseDelta]
    modes: list[Any]

    def step(self, world: World) -> Observation:
        motion = self.motions[0] if len(self.motions) == 1 else self.motions
        clock = (self.modes[0] if len(self.modes) == 1 else self.modes) if self.modes else None
        return world.step(motion, clock)


Block = tuple[NDArray[np.uint8], Array]
"""Frames [F, H, W, 3] and their times in the world."""


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """From one reset or restore to the next."""

    session: Session
    commands: list[_Command | str]  # texts are names of snapshots that were taken

    def blocks(self, world: World, kept: dict[str, tuple[WorldSnapshot, Block]]) -> Iterator[Block]:
        """Walk it; snapshots are put into `kept`, and taken from there."""
        if self.session.resumes is None:
            first = world.reset(seed=self.session.seed, T_world_camera=self.session.T_world_camera)
            block = first.rgb_u8, first.time_s
        elif self.session.resumes in kept:
            snapshot, block = kept[self.session.resumes]
            world.restore(snapshot)
        else:
            raise InputError(
                f"topic {SESSION}: goes back to snapshot {self.session.resumes!r}, which is not in the bag"
            )
        yield block
        for command in self.commands:
            if isinstance(command, str):
                kept[command] = world.snapshot(), (block[0][-1:].copy(), block[1][-1:].copy())
            else:
                made = command.step(world)
                block = made.rgb_u8, made.time_s
                yield block


@dataclass(frozen=True, kw_only=True)
class _Frame:
    time_ns: int
    rgb_u8: NDArray[np.uint8]  # [H, W, 3]
    tolerance_ns: float = 0.0  # frames this near are of the same moment

    @cached_property
    def sha256(self) -> bytes:
        size = np.array(self.rgb_u8.shape, np.int64).tobytes()
        return hashlib.sha256(size + self.rgb_u8.tobytes()).digest()


def _replayed(walks: list[_Walk], progress: ProgressCallback | None) -> Iterator[_Frame]:
    """The frames of all walks, made again."""
    num_blocks, num_done = sum(1 + len(walk.commands) for walk in walks), 0
    world: World | None = None
    made: Session | None = None
    kept: dict[str, tuple[WorldSnapshot, Block]] = {}
    for walk in walks:
        place = replace(walk.session, seed=0, start_s=0.0, T_world_camera=None, resumes=None)
        if world is None or place != made:
            world, made = walk.session.world(progress), place
        for frames_u8, times_s in walk.blocks(world, kept):
            for rgb_u8, time_s in zip(frames_u8, times_s, strict=True):
                time_ns = round((walk.session.start_s + float(time_s)) * 1e9)
                yield _Frame(time_ns=time_ns, rgb_u8=rgb_u8, tolerance_ns=0.25e9 / world.reference.fps)
            num_done += 1
            if progress:
                progress("replaying", num_done / num_blocks)


def _walks(bag: Bag, prefix: str) -> Iterator[_Walk]:
    """The sessions of a bag with their commands; motions of one moment are one command."""
    names = [f"{prefix}{name}" for name in (SESSION, SNAPSHOT, MOTION, TIME_MODE)]
    walk: _Walk | None = None
    command: _Command | None = None  # the last one
    command_ns = 0
    for name, _, message in bag.messages(*(name for name in names if name in bag.topics)):
        topic = name.removeprefix(prefix)
        if topic == SESSION:
            if walk:
                yield walk
            walk, command = _Walk(session=Session.from_json(message.data), commands=[]), None
        elif walk is None or (topic == TIME_MODE and command is None):
            raise InputError(f"{bag.path}: topic {name} before what it belongs to: want a bag from its beginning on")
        elif topic == SNAPSHOT:
            walk.commands.append(message.data)
        elif topic == TIME_MODE:
            assert command is not None
            command.modes.append(message.data or None)
        else:
            if command is None or messages.stamp_ns(message) != command_ns:
                command, command_ns = _Command(motions=[], modes=[]), messages.stamp_ns(message)
                walk.commands.append(command)
            command.motions.append(messages.delta_of(message))
    if walk:
        yield walk


def _recorded(bag: Bag, topic: str) -> Iterator[_Frame]:
    for _, _, message in bag.messages(topic):
        yield _Frame(time_ns=messages.stamp_ns(message), rgb_u8=messages.color_array(message))


def _there(bag: Bag) -> str:
    return f"there are {', '.join(bag.topics)}" if bag.topics else "it is empty"
