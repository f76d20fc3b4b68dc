"""Resources that the envs of a process share: clips with geometry, their maps, and loaded generators.

They are released when the last env that uses them closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from inspatio_envs.episodes import EpisodeConfig, EpisodeSampler, reference_map
from inspatio_sim.errors import InputError
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.mapping import PlanningGrid, WorldMap
from inspatio_sim.motion.camera import Array
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import map_config_for
from inspatio_sim.world.source import ClipSource, WorldSource, paths_of

Video = str | tuple[str, ...]

_lock = RLock()
_places: WeakValueDictionary[str, Place] = WeakValueDictionary()


@dataclass(frozen=True, kw_only=True)
class Track:
    """Frames of a clip with the cameras that took them."""

    frames_u8: NDArray[np.uint8]  # [N, H, W, 3]
    T_world_camera: Array  # [N, 4, 4]
    time_s: Array  # since the clip began. [N]

    @classmethod
    def of(cls, reference: Reference, frame_idx: slice = slice(None)) -> Track:
        """A selection of the frames."""
        time_s = np.arange(reference.num_frames) / reference.fps
        return cls(
            frames_u8=reference.frames_u8[frame_idx],
            T_world_camera=reference.T_world_camera[frame_idx],
            time_s=time_s[frame_idx],
        )

    def at(self, time_s: float) -> int:
        """Index of the first frame at or after a time; after the end, the last frame."""
        return min(int(np.searchsorted(self.time_s, time_s - 1e-9)), len(self.time_s) - 1)


class Place:
    """A clip with geometry, and results computed from it once for all envs."""

    def __init__(self, reference: Reference, track: Track) -> None:
        self.reference = reference  # the source of the world
        self.track = track  # the camera path to follow
        self._samplers: dict[tuple[EpisodeConfig | None, float], EpisodeSampler] = {}

    @cached_property
    def map(self) -> WorldMap:
        """A map of everything the clip shows."""
        return reference_map(self.reference, map_config_for(self.reference))

    @cached_property
    def grid(self) -> PlanningGrid:
        """The floor plan of that map."""
        return self.map.planning_grid()

    @cached_property
    def floor_y_m(self) -> float | None:
        """Height of the floor (world y, down)."""
        return self.map.floor_y_m()

    def sampler(self, config: EpisodeConfig | None, body_radius_m: float) -> EpisodeSampler:
        """The sampler of episodes."""
        with _lock:
            key = config, body_radius_m
            if key not in self._samplers:
                self._samplers[key] = EpisodeSampler(self.reference, self.map, config, body_radius_m=body_radius_m)
            return self._samplers[key]


def place(
    video: Video | None,
    size_px: tuple[int, int],
    *,
    start_frame: int = 0,
    max_frames: int | None = None,
    fps: float | None = None,
    hold_out: bool = False,
    reconstruct_options: Mapping[str, Any] | None = None,
) -> Place:
    """Read a clip and reconstruct its geometry, or reuse the result of another env of this process.

    Args:
        video: as for `World.from_video`; None: the procedural demo room.
        size_px: (height, width) of the frames.
        start_frame: number of frames to skip at the start.
        max_frames: maximum number of frames read.
        fps: frame rate to resample to; None: the clip's own.
        hold_out: the world is made from every other frame, and the track is the frames between.
        reconstruct_options: see `inspatio_sim.reconstruction.Recipe.of`.
    """
    clip = ClipSource(
        paths=() if video is None else paths_of(video),
        size_px=size_px,
        start_frame=start_frame,
        max_frames=max_frames,
        fps=fps,
        reconstruct=dict(reconstruct_options or {}),
    )
    key = f"{clip.key()} {hold_out}"
    with _lock:
        found = _places.get(key)
        if found is None:
            reference, _ = clip.reference()
            found = _places[key] = _held_out(reference) if hold_out else _whole(reference)
        return found


def _whole(reference: Reference) -> Place:
    return Place(reference, Track.of(reference))


def _held_out(reference: Reference) -> Place:
    if reference.num_frames < 4:
        raise InputError(
            f"{reference.source}: {reference.num_frames} frames: want at least 4 to hold every other one out; "
            'take a longer clip, or task_options={"path": "reference"}'
        )
    kept = replace(
        reference,
        frames_u8=np.ascontiguousarray(reference.frames_u8[::2]),
        depth_m=np.ascontiguousarray(reference.depth_m[::2]),
        T_world_camera=reference.T_world_camera[::2],
        fps=reference.fps / 2,
    )
    return Place(kept, Track.of(reference, slice(1, None, 2)))


def generator(name: str, preset: str | None, options: Mapping[str, Any]) -> Generator:
    """Load a generator, or reuse the one that another env of this process loaded."""
    chosen = {**options, **({} if preset is None else {"preset": preset})}
    return WorldSource(generator=name, generator_options=chosen).load_generator()
