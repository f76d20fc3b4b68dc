"""A world's state to arrays and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inspatio_sim.generators.protocol import PackedState
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, CameraPath
from inspatio_sim.world.loop import Setting, WorldState


@dataclass(frozen=True, kw_only=True)
class WorldSnapshot:
    """Everything a world needs to continue bit-exactly; it does not change when the world does."""

    seed: int
    num_frames: int
    mapped_frame_idx: int | None  # the last reference frame that went into the map
    path: dict[str, Array]
    clock: dict[str, Any]
    map: dict[str, np.ndarray]
    generator: PackedState


def snapshot_of(setting: Setting, state: WorldState) -> WorldSnapshot:
    """A copy that later steps do not change."""
    return WorldSnapshot(
        seed=state.seed,
        num_frames=state.num_frames,
        mapped_frame_idx=state.mapped_frame_idx,
        path=state.path.state(),
        clock=state.clock.state(),
        map=state.map.state(),
        generator=setting.generator.pack(state.generator),
    )


def state_of(setting: Setting, snapshot: WorldSnapshot) -> WorldState:
    """Rebuild the state from a snapshot.

    Raises:
        InputError: it is damaged, or its world was made with other settings.
    """
    path, clock, world_map = CameraPath(), setting.new_clock(), WorldMap(setting.config.map)
    path.load_state(snapshot.path)
    clock.load_state(snapshot.clock)
    world_map.load_state(snapshot.map)
    return WorldState(
        seed=snapshot.seed,
        path=path,
        clock=clock,
        map=world_map,
        generator=setting.generator.unpack(snapshot.generator, setting.reference),
        num_frames=snapshot.num_frames,
        mapped_frame_idx=snapshot.mapped_frame_idx,
    )
