"""Turns a video into a world that an agent can move in, with frames, depth, a map and collisions.

    from inspatio_sim import PoseDelta, World

    world = World.from_video("clip.mp4")
    observation = world.reset()

The names in `__all__` are imported on first use, so that `import inspatio_sim` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from inspatio_sim.machine import forks as forks  # makes forks safe from here on

if TYPE_CHECKING:
    from inspatio_sim.clips.video import read_clip
    from inspatio_sim.generators import generator_by_name
    from inspatio_sim.motion.camera import PoseDelta
    from inspatio_sim.reconstruction.auto import reconstruct
    from inspatio_sim.reference.reference import Reference
    from inspatio_sim.world.config import WorldConfig
    from inspatio_sim.world.source import ClipSource, WorldSource
    from inspatio_sim.world.world import World, reset_worlds, step_worlds

__all__ = [
    "ClipSource",
    "PoseDelta",
    "Reference",
    "World",
    "WorldConfig",
    "WorldSource",
    "generator_by_name",
    "read_clip",
    "reconstruct",
    "reset_worlds",
    "step_worlds",
]

_MODULES = {
    "ClipSource": "world.source",
    "PoseDelta": "motion.camera",
    "Reference": "reference.reference",
    "World": "world.world",
    "WorldConfig": "world.config",
    "WorldSource": "world.source",
    "generator_by_name": "generators",
    "read_clip": "clips.video",
    "reconstruct": "reconstruction.auto",
    "reset_worlds": "world.world",
    "step_worlds": "world.world",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
