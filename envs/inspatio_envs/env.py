"""The env: actions move the camera of a world made from a clip; a task rewards them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import cv2
import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from inspatio_envs import shared
from inspatio_envs.actions import Motion, Time, action_set, checked_action
from inspatio_envs.config import EnvConfig
from inspatio_envs.episodes import Episode, EpisodeConfig, EpisodeSampler, load_episodes
from inspatio_envs.shared import Place, Video
from inspatio_envs.spaces import (
    ObservationName,
    observation_space,
    read_codes,
    read_depth,
    read_goal,
    read_grid,
    read_pose,
)
from inspatio_envs.tasks import Follow, Request, Task, View, task_by_name
from inspatio_envs.window import Window, window_problem
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.generators import kind_by_name
from inspatio_sim.motion.camera import Array, PoseDelta, check_pose
from inspatio_sim.world.snapshot import WorldSnapshot
from inspatio_sim.world.world import World

RESET_OPTIONS = ("episode", "pose", "video")
DEMO_FPS = 12.0

Answer = tuple[dict[str, NDArray[Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The last frame that the agent saw."""

    rgb_u8: NDArray[np.uint8]  # [H, W, 3]
    depth_m: NDArray[np.float32]  # [H, W]
    known: NDArray[np.uint8]  # [H, W]
    T_world_camera: Array  # [4, 4]

    @classmethod
    def of(cls, observation: Observation) -> Frame:
        """Copies."""
        return cls(
            rgb_u8=observation.rgb_u8[-1].copy(),
            depth_m=observation.depth_m[-1].copy(),
            known=observation.known[-1].copy(),
            T_world_camera=observation.T_world_camera[-1].copy(),
        )


@dataclass(frozen=True, kw_only=True)
class EnvSnapshot:
    """Everything an env needs to continue bit-exactly; it does not change when the env does."""

    video: Video | None
    world: WorldSnapshot
    task: Task
    episode: Episode | None
    rng: dict[str, Any]
    frame: Frame
    info: dict[str, Any]
    num_steps: int
    is_done: bool


class InspatioEnv(gymnasium.Env[dict[str, NDArray[Any]], Any]):
    """An env inside a clip.

    One step is one action, held for `frame_skip` blocks of the generator's frames: a block is 1 frame with `warp` and
    `frame`, 12 with `star` (unless `generator_options` say otherwise). The observation is the last frame. A discrete
    action has a fixed size, spread over the step. A `Box` action is a velocity, so it goes further in a longer step.
    With `chunk_actions` there is one action for each frame of the block.

    | argument | spaces |
    | --- | --- |
    | `observations` | see `inspatio_envs.spaces` |
    | `action="discrete"` | `Discrete(9)`: stop, forward, back, left, right, turn left, turn right, look up, look down |
    | `action="unicycle"` | `Box(-1, 1, (2,))`: forward speed (1 = 1 m/s), turn rate (1 = 1.5 rad/s), positive left |
    | `action="6dof"` | `Box(-1, 1, (6,))`: vx vy vz (1 = 1 m/s), wx wy wz (1 = 1.5 rad/s), camera axes |
    | `time_control=True` | one more choice of reverse, freeze, slow, play (see `inspatio_envs.actions`) |

    `inspatio_envs.tasks` defines tasks, rewards and measures. After every reset and step `info` holds the measures,
    `time_s`, `hallucinated_fraction` (share of the step's pixels that the clip never showed), `drift` (mean
    difference, 0..1, between the last frame and its geometric render), `has_collided`, `left_trust` (the limit that
    truncated the step) and, if the task has episodes, `episode_id`.

    `reset(options=...)` takes `episode` (an `Episode`, an equivalent dict, or an id from the file), `pose` (start of
    the camera, T_world_camera) and `video` (another clip for this episode).

    Clip and generator are loaded at the first reset and shared by all envs of a process. Until then
    `metadata["render_fps"]` assumes a clip of 12 frames a second, unless `fps` is set.

    Args:
        config: all arguments in one object, or
        **options: fields of `EnvConfig`.
        render_mode: `rgb_array` (the last frame), `rgb_array_list` (every frame since the last call), `depth_array`
            (metres) or `human` (a window).
    """

    metadata = {
        "render_modes": ["rgb_array", "rgb_array_list", "human", "depth_array"],
        "render_fps": DEMO_FPS,
    }

    def __init__(self, config: EnvConfig | None = None, *, render_mode: str | None = None, **options: Any) -> None:
        if config is not None and options:
            raise InputError(f"config and {', '.join(options)}: want one config, or its fields")
        self.config = config = config or EnvConfig.from_options(options)
        modes = type(self).metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise InputError(f"render_mode={render_mode!r}: want one of {', '.join(modes)}, or None")
        problem = window_problem()
        if render_mode == "human" and problem:
            raise InputError(f"render_mode='human': {problem}: want a display, or render_mode='rgb_array'")
        self.render_mode = render_mode
        self._frames_per_block = num_frames = kind_by_name(config.generator).frames_per_block(config.generator_options)
        self.metadata = {
            "render_modes": [mode for mode in modes if mode != "human" or not problem],  # those that work here
            "render_fps": self._render_fps(config.fps or DEMO_FPS),
        }
        self.actions = action_set(
            config.action,
            config.action_options,
            time_control=config.time_control,
            num_frames=num_frames if config.chunk_actions else 0,
        )
        self.action_space = self.actions.space
        self.task = self._new_task()
        self._names = config.observations or self._default_observations()
        for name in self._names:
            if name in ("goal", "goal_image") and name not in self.task.shows:
                raise InputError(
                    f"observations: the task {config.task!r} has no {name}: want pointnav, imagenav or follow"
                )
        space = observation_space(self._names, config.size_px, config.grid_cells, config.layout)
        self.observation_space = cast(gymnasium.Space[dict[str, NDArray[Any]]], space)
        self._episode_config = _episode_config(config.episode_options)
        self._file_episodes = load_episodes(config.episodes) if config.episodes else []
        self._worlds: dict[Video | None, tuple[Place, World]] = {}
        self._video: Video | None = config.video
        self._frame: Frame | None = None
        self._window: Window | None = None
        self._is_seeded = False
        self._forget()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Answer:
        """Start an episode; the class documents `options`."""
        world_seed, T_world_camera = self.plan_reset(seed, options)
        return self.finish_reset(self.world.reset(seed=world_seed, T_world_camera=T_world_camera))

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Apply an action for one step of `frame_skip` blocks."""
        motion, time = self.plan(action)
        for _ in range(self.config.frame_skip - 1):
            self.watch(self.world.step(motion, time))
        return self.finish(self.world.step(motion, time))

    def plan_reset(self, seed: int | None, options: Mapping[str, Any] | None) -> tuple[int, Array | None]:
        """The first half of `reset`: seed and start pose for `World.reset`; `finish_reset` comes after that.

        The split lets a vector env reset and step many worlds in one call (`inspatio_sim.world.world`).
        """
        if options is not None and not isinstance(options, Mapping):
            raise InputError(
                f"options is a {type(options).__name__}: want a dict with some of {', '.join(RESET_OPTIONS)}"
            )
        options = dict(options or {})
        unknown = sorted(set(options) - set(RESET_OPTIONS))
        if unknown:
            raise InputError(f"reset options {', '.join(unknown)}: want some of {', '.join(RESET_OPTIONS)}")
        if seed is None and not self._is_seeded:
            seed = self.config.seed
        super().reset(seed=seed)
        self._is_seeded = True
        self._forget()
        self._go_to(_video(options["video"]) if "video" in options else self.config.video)
        pose = options.get("pose")
        request = Request(
            episode=self._episode_asked_for(options.get("episode")),
            T_world_start=None if pose is None else check_pose(pose, "options['pose']"),
            difficulty=self.config.difficulty,
        )
        self._episode = episode = self.task.prepare(self._view(), request, self.np_random)
        start = request.T_world_start
        if start is None and episode is not None:
            start = np.array(episode.T_world_start)
        return int(self.np_random.integers(2**31)), start

    def finish_reset(self, observation: Observation) -> Answer:
        """The second half of `reset`, given the world's first block."""
        self._keep(observation)
        self._info = self._facts([observation]) | self.task.begin(self._view(), self._episode, observation)
        self._is_done = False
        self._present()
        return self._show(), dict(self._info)

    def plan(self, action: Any) -> tuple[Motion, Time]:
        """The first half of `step`: arguments for `World.step`, to be called `frame_skip` times.

        Each observation but the last goes to `watch`, the last one to `finish`.
        """
        if self._frame is None:
            raise ResetNeeded("step before reset: call reset() first")
        if self._is_done:
            raise ResetNeeded("step after the end of the episode: call reset() first")
        self._blocks.clear()
        checked = checked_action(action, self.action_space)
        self._is_stop = self.actions.is_stop(checked)
        fps = self.world.reference.fps
        motion, time = self.actions.motion(checked, self._frames_per_block * self.config.frame_skip / fps)
        if self.config.frame_skip > 1:
            motion = cast(PoseDelta, motion).part(1 / self.config.frame_skip)
        return motion, time

    def watch(self, observation: Observation) -> None:
        """Process a block of a step, except its last."""
        self._blocks.append(observation)
        if self.render_mode == "rgb_array_list":
            self._frames.extend(observation.rgb_u8.copy())

    def finish(self, observation: Observation) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """The second half of `step`, with its last block."""
        view = self._view()
        blocks = [*self._blocks, observation]
        self._blocks.clear()
        self._keep(observation)
        for block in blocks:
            self.task.watch(view, block)
        result = self.task.step(view, observation, is_stop=self._is_stop)
        self._num_steps += 1
        facts = self._facts(blocks)
        self._info = facts | result.measures
        truncated = bool(facts["left_trust"]) or self._num_steps == self.config.max_steps
        self._is_done = result.terminated or truncated
        self._present()
        return self._show(), float(result.reward), bool(result.terminated), truncated, dict(self._info)

    def snapshot(self) -> EnvSnapshot:
        """Everything that `restore` needs to continue bit-exactly from here, including the random state."""
        if self._frame is None:
            raise ResetNeeded("snapshot before reset: call reset() first")
        return EnvSnapshot(
            video=self._video,
            world=self.world.snapshot(),
            task=copy.deepcopy(self.task),
            episode=self._episode,
            rng=copy.deepcopy(dict(self.np_random.bit_generator.state)),
            frame=self._frame,
            info=dict(self._info),
            num_steps=self._num_steps,
            is_done=self._is_done,
        )

    def restore(self, snapshot: EnvSnapshot) -> Answer:
        """Restore a snapshot of this env or of one made the same way; returns the observation at that point."""
        if not isinstance(snapshot, EnvSnapshot):
            raise InputError(f"snapshot is a {type(snapshot).__name__}: want the result of snapshot()")
        if type(snapshot.task) is not type(self.task) or snapshot.frame.depth_m.shape != self.config.size_px:
            raise InputError("snapshot is of an env with another task or size_px: want one made the same way")
        self._forget()
        self._go_to(snapshot.video)
        self.world.restore(snapshot.world)
        self.task = copy.deepcopy(snapshot.task)
        self.np_random.bit_generator.state = copy.deepcopy(snapshot.rng)
        self._is_seeded = True
        self._episode = snapshot.episode
        self._frame, self._info = snapshot.frame, dict(snapshot.info)
        self._num_steps, self._is_done = snapshot.num_steps, snapshot.is_done
        return self._show(), dict(self._info)

    def render(self) -> Any:
        """See `render_mode`; None before the first reset."""
        if self._frame is None or self.render_mode in (None, "human"):
            return None
        if self.render_mode == "rgb_array_list":
            frames, self._frames = self._frames, []
            return frames
        return (self._frame.depth_m if self.render_mode == "depth_array" else self._frame.rgb_u8).copy()

    def close(self) -> None:
        """Release clip, generator and window; may be called again."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._worlds.clear()
        self._forget()

    def observe_as(self, name: ObservationName) -> NDArray[Any]:
        """Return an observation by name, even if it is not in the space (see `inspatio_envs.spaces`)."""
        frame, config = self._frame, self.config
        if frame is None:
            raise ResetNeeded("observation before reset: call reset() first")
        if name == "rgb":
            return frame.rgb_u8.copy()
        if name == "depth":
            return read_depth(frame.depth_m, config.layout)
        if name == "known":
            return read_codes(frame.known, config.layout)
        if name == "pose":
            return read_pose(frame.T_world_camera)
        if name == "goal":
            return read_goal(frame.T_world_camera, self.task.goal_m())
        if name == "goal_image":
            return self.task.goal_image(self._view())
        floor_y_m = self.place.floor_y_m
        cells = read_grid(self.world.map, frame.T_world_camera, floor_y_m, config.grid_cells, config.grid_cell_m)
        return read_codes(cells, config.layout)

    @property
    def world(self) -> World:
        """The world of this episode."""
        return self._loaded()[1]

    @property
    def place(self) -> Place:
        """The clip of this episode, and what is computed from it."""
        return self._loaded()[0]

    @property
    def sampler(self) -> EpisodeSampler:
        """The sampler of episodes in this clip, which also measures paths."""
        return self._view().sampler

    @property
    def episode(self) -> Episode | None:
        """The current episode; None: the task has none."""
        return self._episode

    def _loaded(self) -> tuple[Place, World]:
        if self._video not in self._worlds:
            raise ResetNeeded("no world before the first reset: call reset() first")
        return self._worlds[self._video]

    def _go_to(self, video: Video | None) -> None:
        """Enter the world of a clip. The clip of the arguments is kept; others only while in use."""
        for other in [key for key in self._worlds if key not in (video, self.config.video)]:
            del self._worlds[other]
        if video not in self._worlds:
            config = self.config
            place = shared.place(
                video,
                config.size_px,
                start_frame=config.start_frame,
                max_frames=config.max_frames,
                fps=config.fps,
                hold_out=isinstance(self.task, Follow) and self.task.config.path == "held-out",
                reconstruct_options=config.reconstruct_options,
            )
            generator = shared.generator(config.generator, config.preset, config.generator_options)
            world = World(place.reference, generator=generator, prompt=config.prompt, config=config.world)
            self._worlds[video] = place, world
        self._video = video
        self.metadata["render_fps"] = self._render_fps(self.place.reference.fps)

    def _new_task(self) -> Task:
        config = self.config
        has_stop = config.action == "discrete"
        return task_by_name(config.task, config.task_options, sparse=config.sparse, has_stop=has_stop)

    def _default_observations(self) -> tuple[ObservationName, ...]:
        extra = {"pointnav": ("goal",), "imagenav": ("goal_image",), "follow": ("goal",)}
        return cast(tuple[ObservationName, ...], ("rgb", "depth", "known", "pose", *extra.get(self.config.task, ())))

    def _render_fps(self, fps: float) -> float:
        if self.render_mode == "rgb_array_list":
            return fps
        return fps / (self._frames_per_block * self.config.frame_skip)

    def _view(self) -> View:
        place, world = self._loaded()
        step_s = self._frames_per_block * self.config.frame_skip / world.reference.fps
        radius_m = world.config.body_radius_m
        return View(place=place, body_radius_m=radius_m, step_s=step_s, episodes=self._episode_config)

    def _episode_asked_for(self, asked: object) -> Episode | None:
        episodes = self._file_episodes
        if asked is None:
            fitting = [e for e in episodes if self.config.difficulty in (None, e.difficulty)]
            if episodes and not fitting:
                raise InputError(
                    f"{self.config.episodes}: no episode is {self.config.difficulty}: want difficulty=None"
                )
            return fitting[int(self.np_random.integers(len(fitting)))] if fitting else None
        if isinstance(asked, Episode):
            return asked
        if isinstance(asked, str):
            for episode in episodes:
                if episode.episode_id == asked:
                    return episode
            where = self.config.episodes or "no file of episodes was given"
            raise InputError(f"options['episode']={asked!r}: not found ({where}): want an id of the file")
        if isinstance(asked, Mapping):
            return _episode_of(asked)
        raise InputError(f"options['episode'] is a {type(asked).__name__}: want an Episode, a dict or an id")

    def _forget(self) -> None:
        """No episode."""
        self._episode: Episode | None = None
        self._frame = None
        self._frames: list[NDArray[np.uint8]] = []
        self._blocks: list[Observation] = []
        self._info: dict[str, Any] = {}
        self._num_steps = 0
        self._is_done = False
        self._is_stop = False

    def _keep(self, observation: Observation) -> None:
        self._frame = Frame.of(observation)
        if self.render_mode == "rgb_array_list":
            self._frames.extend(observation.rgb_u8.copy())

    def _facts(self, blocks: list[Observation]) -> dict[str, Any]:
        """The part of `info` that all tasks share."""
        fraction = float(np.mean([block.hallucinated_fraction for block in blocks]))
        drift = _drift(blocks[-1])
        facts: dict[str, Any] = {
            "time_s": float(blocks[-1].time_s[-1]),
            "hallucinated_fraction": fraction,
            "drift": drift,
            "has_collided": any(block.has_collided for block in blocks),
            "left_trust": left_trust(fraction, drift, self.config.max_hallucinated_fraction, self.config.max_drift),
        }
        return facts if self._episode is None else facts | {"episode_id": self._episode.episode_id}

    def _show(self) -> dict[str, NDArray[Any]]:
        return {name: self.observe_as(name) for name in self._names}

    def _present(self) -> None:
        if self.render_mode == "human" and self._frame is not None:
            self._window = self._window or Window("inspatio")
            self._window.show(self._frame.rgb_u8)


def left_trust(
    hallucinated_fraction: float, drift: float, max_hallucinated_fraction: float | None, max_drift: float | None
) -> str:
    """Name of the exceeded limit: `hallucinated_fraction`, `drift`, or empty for neither."""
    if max_hallucinated_fraction is not None and hallucinated_fraction > max_hallucinated_fraction:
        return "hallucinated_fraction"
    if max_drift is not None and drift > max_drift:
        return "drift"
    return ""


def _video(asked: object) -> Video | None:
    if asked is None or isinstance(asked, str):
        return asked
    if isinstance(asked, (list, tuple)) and asked and all(isinstance(path, str) for path in asked):
        return tuple(asked)
    raise InputError(f"options['video'] is {asked!r}: want a path, a list of images, or None for the demo room")


def _episode_of(fields: Mapping[str, Any]) -> Episode:
    try:
        values = dict(fields)
        for name in ("T_world_start", "T_world_goal"):
            values[name] = tuple(tuple(float(value) for value in row) for row in values[name])
        values["goal_m"] = tuple(float(value) for value in values["goal_m"])
        return Episode(**values)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"options['episode']: {error}: want the fields of inspatio_envs.episodes.Episode") from error


def _episode_config(options: Mapping[str, Any]) -> EpisodeConfig | None:
    if not options:
        return None
    known = EpisodeConfig.__dataclass_fields__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"episode_options has {', '.join(unknown)}: want some of {', '.join(known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return EpisodeConfig(**values)


def _drift(block: Observation) -> float:
    """Difference of a block's last frame from its geometric render, 0 to 1; 0 if nothing is rendered."""
    difference = cv2.absdiff(block.rgb_u8[-1], block.render_u8[-1])
    return float(np.mean(cv2.mean(difference, block.is_rendered[-1].astype(np.uint8))[:3])) / 255
