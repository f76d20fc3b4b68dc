"""World: the loop. An action comes in, the camera moves, frames with depth come out, the map grows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.clips.video import read_clip
from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.condition.views_seen import views_seen
from inspatio_sim.errors import InputError, WorldNotReset
from inspatio_sim.generators import DEFAULT_GENERATOR, Generator, GeneratorState, PackedState, generator_by_name
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.geometry.completion import DepthCompletion, depth_completion
from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.motion.camera import Array, CameraPath, PoseDelta
from inspatio_sim.reconstruction import Recipe
from inspatio_sim.reconstruction.auto import check_progress
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode, Reference
from inspatio_sim.world.batch import Plan, reset_worlds, step_worlds
from inspatio_sim.world.obstacles import Collisions, avoid_obstacles
from inspatio_sim.world.remember import insert_all, remember


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How a world behaves, whatever generates its frames."""

    clock: ClockMode = "ping-pong"  # what the reference does when it ends, and the speed it plays at
    slow_factor: int = 4  # reference frames stay this many times longer while the clock is `slow`
    collisions: Collisions = "slide"  # what the occupancy map does to a motion
    body_radius_m: float = 0.15  # of the sphere around the camera that may not touch anything
    map_stride_frames: int = 4  # one frame of so many goes into the map, from the first one on
    depth_completion: DepthCompletion = "auto"  # what gives made-up pixels their depth, see `depth_completion`
    map: MapConfig | None = None  # None: sized to the reference, see `map_config_for`

    def __post_init__(self) -> None:
        _check_clock(self.clock)
        if self.collisions not in get_args(Collisions):
            raise InputError(f"collisions={self.collisions!r}: want one of {', '.join(get_args(Collisions))}")
        if self.depth_completion not in get_args(DepthCompletion):
            choices = ", ".join(get_args(DepthCompletion))
            raise InputError(f"depth_completion={self.depth_completion!r}: want one of {choices}")
        if not (np.isfinite(self.body_radius_m) and 0 < self.body_radius_m <= 2):
            raise InputError(f"body_radius_m={self.body_radius_m}: want more than 0 and at most 2 m")
        if type(self.map_stride_frames) is not int or self.map_stride_frames < 1:
            raise InputError(f"map_stride_frames={self.map_stride_frames}: want a whole number from 1 on")


def _check_clock(mode: str) -> None:
    if mode not in get_args(ClockMode):
        raise InputError(f"clock={mode!r}: want one of {', '.join(get_args(ClockMode))}")


def _one_a_frame(name: str, values: object, num_frames: int, want: str) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise InputError(f"{name} is a {type(values).__name__}: want {want}, or a list with one a frame")
    if len(values) != num_frames:
        raise InputError(f"{name}: {len(values)} for a block of {num_frames} frames: want {want}, or one a frame")
    return list(values)


def map_config_for(reference: Reference) -> MapConfig:
    """Points as fine as the reference's pixels at its median depth, within what occupancy can use."""
    known_m = reference.depth_m[reference.depth_m > 0]
    pixel_m = float(np.median(known_m)) / reference.intrinsics.fx_px
    voxel_m = 8 * float(np.clip(pixel_m, 0.01, 0.0125))
    points_per_edge = next((points for points in (2, 4) if 1.5 * voxel_m / points <= pixel_m), 8)
    return MapConfig(occupancy_voxel_m=voxel_m, points_per_edge=points_per_edge)


@dataclass(frozen=True, kw_only=True)
class WorldSnapshot:
    """Everything a world needs to go on bit-exactly; nothing in it changes when the world goes on."""

    seed: int
    num_frames: int
    mapped_frame_idx: int | None  # the frame of the reference that went into the map last
    path: dict[str, Array]
    clock: dict[str, Any]
    map: dict[str, np.ndarray]
    generator: PackedState


class World:
    """A place made from one clip, with one camera in it.

    Example:
        world = World.from_video("clip.mp4")
        observation = world.reset()
        observation = world.step(PoseDelta.from_twist([0, 0, 0.5], [0, 0, 0], duration_s=1.0))

    A step is one block of `generator.frames_per_block` frames at the reference's frame rate; several worlds
    step together with `inspatio_sim.world.batch.step_worlds`.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        config: WorldConfig | None = None,
    ) -> None:
        if not isinstance(prompt, str):
            raise InputError(f"prompt is a {type(prompt).__name__}: want a text, empty for none")
        self.reference = reference
        self.generator = generator_by_name(generator) if isinstance(generator, str) else generator
        config = config or WorldConfig()
        self.config = config if config.map else replace(config, map=map_config_for(reference))
        self.seed = seed
        self.prompt = prompt
        self.condition: Condition | None = None  # what geometry knew of the last block
        self.path = CameraPath(reference.T_world_camera[0])
        self.clock = self._new_clock()
        self.map = WorldMap(self.config.map)
        looks_real = not isinstance(self.generator, WarpGenerator)
        self.complete_depth = depth_completion(config.depth_completion, looks_real=looks_real)
        self.fallback_depth_m = reference.typical_depth_m
        self._is_ready = False

    @classmethod
    def from_video(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        size_px: tuple[int, int] | Literal["auto"] | None = "auto",
        start_frame: int = 0,
        max_frames: int | None = None,
        config: WorldConfig | None = None,
        **reconstruct_options: Any,
    ) -> World:
        """Read a clip, reconstruct its geometry, and make a world of it.

        Args:
            path: a video, an image, several images, a folder of images, or an RGB-D folder.
            generator: name of a generator, or one made elsewhere.
            seed: of everything random in this world.
            prompt: what the world should look like; generators without text ignore it.
            size_px: (height, width) of the world's frames; auto: what the generator makes best; None: the clip's.
            start_frame: leave out so many frames of the clip first.
            max_frames: read at most so many frames.
            config: how the world behaves.
            **reconstruct_options: see `inspatio_sim.reconstruction.reconstruct`.
        """
        progress = reconstruct_options.pop("progress", None)
        check_progress(progress)
        recipe = Recipe.of(reconstruct_options)
        generator = generator_by_name(generator) if isinstance(generator, str) else generator
        size_px = generator.best_size_px if size_px == "auto" else size_px
        clip = read_clip(path, size_px=size_px, start_frame=start_frame, max_frames=max_frames)
        reference = recipe.reconstruct(clip, progress)
        return cls(reference, generator=generator, seed=seed, prompt=prompt, config=config)

    @classmethod
    def from_panorama(
        cls,
        path: str | Path,
        depth: str | Path | None = None,
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        size_px: tuple[int, int] | Literal["auto"] | None = "auto",
        config: WorldConfig | None = None,
        **reconstruct_options: Any,
    ) -> World:
        """Make a world of an equirectangular panorama; the camera starts at its point, looking at its middle.

        Args:
            path: an image, twice as wide as high, level.
            depth: distance along the ray in the same directions (16-bit png in millimetres; npy or exr in metres).
            generator: name of a generator, or one made elsewhere.
            seed: of everything random in this world.
            prompt: what the world should look like; generators without text ignore it.
            size_px: (height, width) of the world's frames; auto: what the generator makes best; None: as fine as
                the panorama.
            config: how the world behaves.
            **reconstruct_options: see `inspatio_sim.reconstruction.panorama.method.reconstruct_panorama`.
        """
        from inspatio_sim.reconstruction.panorama.method import read_panorama, reconstruct_panorama

        generator = generator_by_name(generator) if isinstance(generator, str) else generator
        size_px = generator.best_size_px if size_px == "auto" else size_px
        reference = reconstruct_panorama(read_panorama(path, depth), size_px=size_px, **reconstruct_options)
        return cls(reference, generator=generator, seed=seed, prompt=prompt, config=config)

    def reset(self, *, seed: int | None = None, T_world_camera: ArrayLike | None = None) -> Observation:
        """Start over: empty map, first reference frame, camera at the first reference pose or the one given.

        The first block, `generator.first_block_frames` long, looks from there. If anything fails, the world is
        as it was.
        """
        return reset_worlds([self], [seed], [T_world_camera])[0]

    def step(
        self,
        motion: PoseDelta | Sequence[PoseDelta],
        clock: ClockMode | Sequence[ClockMode | None] | None = None,
    ) -> Observation:
        """Move the camera by `motion` over one block of frames.

        A step that fails leaves the world as it was before: the same step may be tried again.

        Args:
            motion: in the current camera frame, for the whole block or one for each of its frames; obstacles may
                cut it short.
            clock: what time does during this block, or at each of its frames; None: as configured.

        Raises:
            WorldNotReset: if `reset` was never called.
            NotEnoughMemory: the generator does not fit the device.
            GenerationFailed: the generator made something that is no picture.
        """
        return step_worlds([self], [motion], [clock])[0]

    def plan_reset(self, seed: int | None, T_world_camera: ArrayLike | None) -> Plan:
        """What `reset` would show first; nothing changes (see `inspatio_sim.world.batch`)."""
        seed = self.seed if seed is None else seed
        start = self.reference.T_world_camera[0] if T_world_camera is None else T_world_camera
        path, clock, num_frames = CameraPath(start), self._new_clock(), self.generator.first_block_frames
        T_world_camera = np.repeat(path.T_world_camera[None], num_frames, 0)
        return Plan(
            seed=seed,
            path=path,
            clock=clock,
            map=self._first_map(),
            generator_state=self.generator.begin(self.reference, seed, self.prompt),
            T_world_camera=T_world_camera,
            reference_frame_idx=self._reference_frames(clock, [None], T_world_camera),
            mapped_frame_idx=None,
            num_frames=0,
            has_collided=False,
        )

    def plan_step(
        self, motion: PoseDelta | Sequence[PoseDelta], clock: ClockMode | Sequence[ClockMode | None] | None
    ) -> Plan:
        """What `step` would show; nothing changes (see `inspatio_sim.world.batch`)."""
        self._check_is_ready("step")
        num_frames = self.generator.frames_per_block
        motions: list[Any] = [motion]
        if not isinstance(motion, PoseDelta):
            motions = _one_a_frame("motion", motion, num_frames, "a PoseDelta")
        modes: list[Any] = [clock]
        if clock is not None and not isinstance(clock, str):
            modes = _one_a_frame("clock", clock, num_frames, "a mode")
        for part in motions:
            if not isinstance(part, PoseDelta):
                raise InputError(
                    f"motion is a {type(part).__name__}: want a PoseDelta (see inspatio_sim.motion.actions)"
                )
        for mode in modes:
            if mode is not None:
                _check_clock(mode)
        config, path, next_clock = self.config, copy.copy(self.path), copy.copy(self.clock)
        T_world_camera, has_collided = [], False
        for part in motions:
            free, is_cut = avoid_obstacles(part, path.T_world_camera, self.map, config.collisions, config.body_radius_m)
            T_world_camera.append(path.advance(free, num_frames // len(motions)))
            has_collided |= is_cut
        return Plan(
            seed=self.seed,
            path=path,
            clock=next_clock,
            map=self.map,
            generator_state=self._generator_state,
            T_world_camera=np.concatenate(T_world_camera),
            reference_frame_idx=self._reference_frames(next_clock, modes, np.concatenate(T_world_camera)),
            mapped_frame_idx=self._mapped_frame_idx,
            num_frames=self._num_frames,
            has_collided=has_collided,
        )

    def commit(self, plan: Plan, condition: Condition, state: GeneratorState, observation: Observation) -> None:
        """Make a planned block, now generated, part of this world (see `inspatio_sim.world.batch`).

        Where this fails (no memory for a larger map) a step leaves a world that has to be reset or restored.
        """
        if plan.map is self.map:
            self._is_ready = False
        mapped_frame_idx = remember(
            observation,
            condition,
            self.reference,
            first_frame=plan.num_frames,
            mapped_frame_idx=plan.mapped_frame_idx,
            stride_frames=self.config.map_stride_frames,
        )
        self.seed, self.path, self.clock, self.map = plan.seed, plan.path, plan.clock, plan.map
        self._generator_state = state
        self._num_frames = plan.num_frames + len(observation.rgb_u8)
        self._mapped_frame_idx = mapped_frame_idx
        self.condition = condition
        self._is_ready = True

    def _first_map(self) -> WorldMap:
        """Empty, but for a static reference."""
        world_map = WorldMap(self.config.map)
        if self.reference.is_static:
            insert_all(world_map, self.reference)
        return world_map

    def _reference_frames(
        self, clock: Clock, modes: Sequence[ClockMode | None], T_world_camera: Array
    ) -> NDArray[np.int64]:
        """The reference frame of each of a block's frames. [F]

        Of a static reference it is the one that shows most of what the camera sees in the middle of the block: one for
        the whole block, since a change would look like motion to a generator that takes the reference for a clip.
        """
        num_frames = len(T_world_camera)
        if self.reference.is_static:
            seen_best, *_ = views_seen(self.reference, T_world_camera[num_frames // 2], self.reference.typical_depth_m)
            return np.full(num_frames, seen_best, np.int64)
        return np.concatenate([clock.advance(num_frames // len(modes), mode) for mode in modes])

    def _new_clock(self) -> Clock:
        return Clock(self.reference.num_frames, mode=self.config.clock, slow_factor=self.config.slow_factor)

    def _check_is_ready(self, verb: str) -> None:
        if not self._is_ready:
            raise WorldNotReset(
                f"World.{verb} before World.reset, or after a step ran out of memory for its map: call reset() first"
            )

    def snapshot(self) -> WorldSnapshot:
        """Everything that `restore` needs to go on bit-exactly from here."""
        self._check_is_ready("snapshot")
        return WorldSnapshot(
            seed=self.seed,
            num_frames=self._num_frames,
            mapped_frame_idx=self._mapped_frame_idx,
            path=self.path.state(),
            clock=self.clock.state(),
            map=self.map.state(),
            generator=self.generator.pack(self._generator_state),
        )

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Go back to a snapshot of this world, or of one made the same way; a bad one changes nothing."""
        path, clock, world_map = CameraPath(), self._new_clock(), WorldMap(self.config.map)
        path.load_state(snapshot.path)
        clock.load_state(snapshot.clock)
        world_map.load_state(snapshot.map)
        self._generator_state = self.generator.unpack(snapshot.generator, self.reference)
        self.seed, self.path, self.clock, self.map = snapshot.seed, path, clock, world_map
        self._num_frames = snapshot.num_frames
        self._mapped_frame_idx = snapshot.mapped_frame_idx
        self.condition = None
        self._is_ready = True

    def save(self, folder: str | Path) -> None:
        """Write the world with all its state to a folder, atomically."""
        from inspatio_sim.world.files import save_world

        save_world(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> World:
        """Read a world that `save` wrote; it goes on bit-exactly."""
        from inspatio_sim.world.files import load_world

        return load_world(Path(folder))
