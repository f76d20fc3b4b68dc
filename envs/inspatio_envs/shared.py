"""What envs of one process share: clips with geometry, their maps, and loaded generators.

Nothing here outlives the envs that use it: the last one to close lets go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from inspatio_envs.episodes import EpisodeConfig, EpisodeSampler, reference_map
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import Generator, generator_by_name
from inspatio_sim.mapping import PlanningGrid, WorldMap
from inspatio_sim.motion.camera import Array
from inspatio_sim.reconstruction import Recipe
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.world import map_config_for

Video = str | tuple[str, ...]

_lock = RLock()
_places: WeakValueDictionary[str, Place] = WeakValueDictionary()
_generators: WeakValueDictionary[str, Generator] = WeakValueDictionary()


def _forget_lost_generators() -> None:
    """After a fork what lies on a GPU cannot be used; to load it again is refused by name."""
    if torch.cuda._is_in_bad_fork():
        _generators.clear()


os.register_at_fork(after_in_child=_forget_lost_generators)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Frames of a clip with the cameras that took them."""

    frames_u8: NDArray[np.uint8]  # [N, H, W, 3]
    T_world_camera: Array  # [N, 4, 4]
    time_s: Array  # since the clip began. [N]

    @classmethod
    def of(cls, reference: Reference, frame_idx: slice = slice(None)) -> Track:
        """Some frames of a clip."""
        time_s = np.arange(reference.num_frames) / reference.fps
        return cls(
            frames_u8=reference.frames_u8[frame_idx],
            T_world_camera=reference.T_world_camera[frame_idx],
            time_s=time_s[frame_idx],
        )

    def at(self, time_s: float) -> int:
        """Index of the first frame that is not before a time; the last one after the end."""
        return min(int(np.searchsorted(self.time_s, time_s - 1e-9)), len(self.time_s) - 1)


class Place:
    """A clip with geometry, and what can be computed from it once for all envs."""

    def __init__(self, reference: Reference, track: Track) -> None:
        self.reference = reference  # what the world is made from
        self.track = track  # the camera path to follow
        self._samplers: dict[tuple[EpisodeConfig | None, float], EpisodeSampler] = {}

    @cached_property
    def map(self) -> WorldMap:
        """Everything the clip shows, in one map."""
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
        """Where episodes begin and end here."""
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
    """Read a clip and reconstruct its geometry, or take what another env of this process has made.

    Args:
        video: as `World.from_video` takes it; None: the procedural demo room.
        size_px: (height, width) of the frames.
        start_frame: leave out so many frames of the clip first.
        max_frames: read at most so many frames.
        fps: frame rate to resample to; None: the clip's own.
        hold_out: the world is made from every other frame, and the track is the frames between.
        reconstruct_options: see `inspatio_sim.reconstruction.Recipe.of`.
    """
    options = dict(reconstruct_options or {})
    recipe = Recipe.of(options)
    sources = [video] if isinstance(video, str) else list(video or ())
    paths = [str(Path(source).resolve()) for source in sources]
    key = json.dumps([paths, video is None, size_px, start_frame, max_frames, fps, hold_out, options], sort_keys=True)
    with _lock:
        found = _places.get(key)
        if found is None:
            if video is None:
                clip = demo_clip(max_frames or 48, size_px, fps or 12.0)
            else:
                path = video if isinstance(video, str) else list(video)
                clip = read_clip(path, size_px=size_px, start_frame=start_frame, max_frames=max_frames, fps=fps)
            found = _held_out(recipe.reconstruct(clip)) if hold_out else _whole(recipe.reconstruct(clip))
            _places[key] = found
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
    """Load a generator, or take the one that another env of this process has loaded."""
    chosen = {**options, **({} if preset is None else {"preset": preset})}
    key = json.dumps([name, chosen], sort_keys=True)
    with _lock:
        found = _generators.get(key)
        if found is None:
            found = _generators[key] = generator_by_name(name, **chosen)
        return found


def frames_per_block(name: str, options: Mapping[str, Any]) -> int:
    """What a generator with these options will make at once, without loading weights."""
    if name == "warp":
        return generator_by_name(name, **options).frames_per_block
    if name == "frame":
        return 1
    from inspatio_sim.generators.star.generator import MAX_BLOCK_LATENTS, TEMPORAL_STRIDE  # heavy

    block_latents = options.get("block_latents", MAX_BLOCK_LATENTS)
    if type(block_latents) is not int or not 1 <= block_latents <= MAX_BLOCK_LATENTS:
        raise InputError(f"block_latents={block_latents!r}: want a whole number from 1 to {MAX_BLOCK_LATENTS}")
    return TEMPORAL_STRIDE * block_latents
