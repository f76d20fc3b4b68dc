"""World: the loop. An action comes in, the camera moves, frames with depth come out, the map grows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.camera import Array, CameraPath, PoseDelta, check_pose, inverse, pose_from
from inspatio_sim.clock import Clock
from inspatio_sim.condition import (
    FROM_MAP,
    FROM_REFERENCE,
    GENERATED,
    SURFACE_TOLERANCE,
    Condition,
    build_condition,
)
from inspatio_sim.errors import InputError, WorldNotReset
from inspatio_sim.generators import Generator, GeneratorState, generator_by_name
from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.observation import Observation, observe
from inspatio_sim.reconstruct import reconstruct
from inspatio_sim.reference import ClockMode, Reference
from inspatio_sim.video import read_clip

Collisions = Literal["off", "stop", "slide"]

MAX_SLIDES = 3  # surfaces one motion may slide along: a corner has two, or three with the floor
MARGIN = np.ones((3, 3), np.uint8)  # a pixel and its neighbours
SKIN_M = 1e-3  # distance kept to what was touched, so that sliding along it is free


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How a world behaves, whatever generates its frames."""

    clock: ClockMode = "ping-pong"  # what the reference does when it ends, and the speed it plays at
    slow_factor: int = 4  # reference frames stay this many times longer while the clock is `slow`
    collisions: Collisions = "slide"  # what the occupancy map does to a motion
    body_radius_m: float = 0.15  # of the sphere around the camera that may not touch anything
    map: MapConfig | None = None  # None: sized to the reference, see `map_config_for`

    def __post_init__(self) -> None:
        _check_clock(self.clock)
        if self.collisions not in get_args(Collisions):
            raise InputError(f"collisions={self.collisions!r}: want one of {', '.join(get_args(Collisions))}")
        if not (np.isfinite(self.body_radius_m) and 0 < self.body_radius_m <= 2):
            raise InputError(f"body_radius_m={self.body_radius_m}: want more than 0 and at most 2 m")


def _check_clock(mode: str) -> None:
    if mode not in get_args(ClockMode):
        raise InputError(f"clock={mode!r}: want one of {', '.join(get_args(ClockMode))}")


def map_config_for(reference: Reference) -> MapConfig:
    """Points as fine as the reference's pixels at its median depth, within what occupancy can use."""
    known_m = reference.depth_m[reference.depth_m > 0]
    pixel_m = float(np.median(known_m)) / reference.intrinsics.fx_px
    return MapConfig(occupancy_voxel_m=8 * float(np.clip(pixel_m, 0.01, 0.0125)))


@dataclass(frozen=True, kw_only=True)
class WorldSnapshot:
    """Everything a world needs to go on bit-exactly; nothing in it changes when the world goes on."""

    seed: int
    num_frames: int
    path: dict[str, Array]
    clock: dict[str, Any]
    map: dict[str, np.ndarray]
    generator: GeneratorState


class World:
    """A place made from one clip, with one camera in it.

    Example:
        world = World.from_video("clip.mp4")
        observation = world.reset()
        observation = world.step(PoseDelta.from_twist([0, 0, 0.5], [0, 0, 0], duration_s=1.0))

    A step is one block of `generator.frames_per_block` frames at the reference's frame rate.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        generator: str | Generator = "warp",
        seed: int = 0,
        config: WorldConfig | None = None,
    ) -> None:
        self.reference = reference
        self.generator = generator_by_name(generator) if isinstance(generator, str) else generator
        config = config or WorldConfig()
        self.config = config if config.map else replace(config, map=map_config_for(reference))
        self.seed = seed
        self.condition: Condition | None = None  # what geometry knew of the last block
        self._fallback_depth_m = float(np.median(reference.depth_m[0][reference.depth_m[0] > 0]))
        self._is_ready = False

    @classmethod
    def from_video(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        generator: str | Generator = "warp",
        seed: int = 0,
        size_px: tuple[int, int] | None = (480, 832),
        max_frames: int | None = None,
        config: WorldConfig | None = None,
        **reconstruct_options: Any,
    ) -> World:
        """Read a clip, reconstruct its geometry, and make a world of it.

        Args:
            path: a video, an image, several images, a folder of images, or an RGB-D folder.
            generator: name of a generator, or one made elsewhere.
            seed: of everything random in this world.
            size_px: (height, width) of the world's frames; None keeps the clip's.
            max_frames: read at most so many frames.
            config: how the world behaves.
            **reconstruct_options: see `inspatio_sim.reconstruct.reconstruct`.
        """
        clip = read_clip(path, size_px=size_px, max_frames=max_frames)
        return cls(reconstruct(clip, **reconstruct_options), generator=generator, seed=seed, config=config)

    def reset(self, *, seed: int | None = None, T_world_camera: ArrayLike | None = None) -> Observation:
        """Start over: empty map, first reference frame, camera at the first reference pose or the one given."""
        if seed is not None:
            self.seed = seed
        start = self.reference.T_world_camera[0] if T_world_camera is None else check_pose(T_world_camera, "start pose")
        self.path = CameraPath(start)
        self.clock = Clock(self.reference.num_frames, mode=self.config.clock, slow_factor=self.config.slow_factor)
        self.map = WorldMap(self.config.map)
        self._generator_state = self.generator.begin(self.reference, self.seed)
        self._num_frames = 0
        self._is_ready = True
        return self._look(np.repeat(self.path.T_world_camera[None], self.generator.frames_per_block, 0), False)

    def step(self, motion: PoseDelta, clock: ClockMode | None = None) -> Observation:
        """Move the camera by `motion` over one block of frames.

        Args:
            motion: in the current camera frame; obstacles may cut it short.
            clock: what time does during this block; None: as configured.

        Raises:
            WorldNotReset: if `reset` was never called.
        """
        if not self._is_ready:
            raise WorldNotReset("World.step before World.reset: call reset() once first")
        if not isinstance(motion, PoseDelta):
            raise InputError(f"motion is a {type(motion).__name__}: want a PoseDelta (see inspatio_sim.actions)")
        if clock is not None:
            _check_clock(clock)
        motion, has_collided = self._avoid_obstacles(motion)
        return self._look(self.path.advance(motion, self.generator.frames_per_block), has_collided, clock)

    def _look(self, T_world_camera: Array, has_collided: bool, clock: ClockMode | None = None) -> Observation:
        """Let time pass, generate the block seen from F poses, and put what is new into the map."""
        num_frames = len(T_world_camera)
        time_s = (self._num_frames + np.arange(num_frames)) / self.reference.fps
        last_frame_idx = self.clock.frame_idx if self._num_frames else None
        frame_idx = self.clock.advance(num_frames, clock)
        self._map_reference(frame_idx, last_frame_idx, time_s)
        condition = build_condition(self.reference, self.map, T_world_camera, frame_idx)
        (rgb_u8,), (self._generator_state,) = self.generator.generate([condition], [self._generator_state])
        observation = observe(
            rgb_u8,
            condition,
            time_s=time_s,
            has_collided=has_collided,
            world_map=self.map,
            fallback_depth_m=self._fallback_depth_m,
        )
        self._map_made_up(observation, condition)
        self._num_frames += num_frames
        self.condition = condition
        return observation

    def _map_reference(self, frame_idx: NDArray[np.int64], last_frame_idx: int | None, time_s: Array) -> None:
        """Put what the reference shows at these moments into the map, as its own camera measured it.

        Not as the agent sees it: a warped view has lost precision, and what the map itself shows in it
        could never be contradicted.
        """
        for i, time in zip(frame_idx, time_s, strict=True):
            if i != last_frame_idx:  # while time stands still there is no news
                frame, depth_m = self.reference.frames_u8[i], self.reference.depth_m[i]
                # A pixel beside something nearer has some of its colour.
                is_mixed = cv2.erode(depth_m, MARGIN) < depth_m * (1 - SURFACE_TOLERANCE)
                known = np.where(is_mixed, np.uint8(FROM_MAP), np.uint8(FROM_REFERENCE))
                self.map.insert(
                    frame, depth_m, known, self.reference.intrinsics, self.reference.T_world_camera[i], time
                )
            last_frame_idx = i

    def _map_made_up(self, observation: Observation, condition: Condition) -> None:
        """Remember what the generator has just made up, so that a place stays as it is."""
        for i, is_rendered in enumerate(condition.is_rendered):
            # Not next to rendered pixels: depth there lies between two surfaces, and colour comes from them anyway.
            is_made_up = cv2.erode((~is_rendered).astype(np.uint8), MARGIN) > 0
            if is_made_up.any():
                self.map.insert(
                    observation.rgb_u8[i],
                    observation.depth_m[i],
                    np.where(is_made_up, np.uint8(GENERATED), np.uint8(FROM_MAP)),
                    self.reference.intrinsics,
                    observation.T_world_camera[i],
                    observation.time_s[i],
                )

    def _avoid_obstacles(self, motion: PoseDelta) -> tuple[PoseDelta, bool]:
        """Cut a motion short at the first obstacle, or let it slide along; turning is always free."""
        if self.config.collisions == "off" or motion.distance_m == 0:
            return motion, False
        T_start = self.path.T_world_camera
        T_end = T_start @ motion.T_old_new
        position_m, wanted_m = T_start[:3, 3], T_end[:3, 3]
        has_collided = False
        for _ in range(MAX_SLIDES if self.config.collisions == "slide" else 1):
            sweep = self.map.sweep_sphere(position_m, wanted_m, self.config.body_radius_m)
            way_m = wanted_m - position_m
            if sweep.fraction >= 1:
                position_m = wanted_m
                break
            has_collided = True
            assert sweep.normal is not None, "a sweep that ends early touched something"
            free_m = max(0.0, sweep.fraction * float(np.linalg.norm(way_m)) - SKIN_M)
            position_m = position_m + way_m / np.linalg.norm(way_m) * free_m
            rest_m = wanted_m - position_m
            rest_m = rest_m - min(0.0, float(rest_m @ sweep.normal)) * sweep.normal
            wanted_m = position_m + rest_m
            if np.linalg.norm(rest_m) < SKIN_M:
                break
        if not has_collided:
            return motion, False
        T_stopped = pose_from(T_end[:3, :3], position_m)
        return PoseDelta.from_matrix(inverse(T_start) @ T_stopped), True

    def snapshot(self) -> WorldSnapshot:
        """Everything that `restore` needs to go on bit-exactly from here."""
        if not self._is_ready:
            raise WorldNotReset("World.snapshot before World.reset: call reset() once first")
        return WorldSnapshot(
            seed=self.seed,
            num_frames=self._num_frames,
            path=self.path.state(),
            clock=self.clock.state(),
            map=self.map.state(),
            generator=copy.deepcopy(self._generator_state),
        )

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Go back to a snapshot of this world, or of one made the same way."""
        self.seed = snapshot.seed
        self._num_frames = snapshot.num_frames
        self.path = CameraPath()
        self.path.load_state(snapshot.path)
        self.clock = Clock(self.reference.num_frames, mode=self.config.clock, slow_factor=self.config.slow_factor)
        self.clock.load_state(snapshot.clock)
        self.map = WorldMap(self.config.map)
        self.map.load_state(snapshot.map)
        self._generator_state = copy.deepcopy(snapshot.generator)
        self.condition = None
        self._is_ready = True

    def save(self, folder: str | Path) -> None:
        """Write the world with all its state to a folder, atomically."""
        from inspatio_sim.world_files import save_world

        save_world(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> World:
        """Read a world that `save` wrote; it goes on bit-exactly."""
        from inspatio_sim.world_files import load_world

        return load_world(Path(folder))
