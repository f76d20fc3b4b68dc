"""Cases of `World` itself: steps, snapshots, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.unchanged import doors
from tests.unchanged.command_cases import CLIP
from tests.unchanged.contents import contents

SHOWN = ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx", "has_collided")
GENERATORS = ("warp", "star", "frame")


def world_warp(folder: Path) -> dict[str, Any]:
    way = 4 * [_forward(), _turn()]
    values = _walk(folder, "warp", way)
    stopped = doors.make_world(CLIP, "warp", {"frames_per_block": 4}, seed=1, collisions="stop", clock="reverse")
    seen = [stopped.reset(), *(stopped.step(doors.motion([0, 0, 1.5], [0, 0.1, 0])) for _ in range(4))]
    return {**values, **_shown(seen, "stopped")}


def world_star(folder: Path) -> dict[str, Any]:
    return _walk(folder, "star", [_forward(), _turn(), _turn()])


def world_frame(folder: Path) -> dict[str, Any]:
    return _walk(folder, "frame", 3 * [_forward(), _turn()])


def old_files(folder: Path) -> dict[str, Any]:
    """Worlds and a session that were saved when recording began still open, and go on as then."""
    values: dict[str, Any] = {"replay": doors.command("bag", "replay", "inputs/session.mcap")}
    for generator in GENERATORS:
        world = doors.load_world(f"inputs/saved-{generator}")
        values |= _shown([world.step(_turn()) for _ in range(2)], generator)
    return values


def save_worlds(inputs: Path) -> None:
    """What `old_files` opens."""
    for generator in GENERATORS:
        world = doors.make_world(str(inputs / "room"), generator, {}, seed=2)
        world.reset()
        world.step(_forward())
        world.save(inputs / f"saved-{generator}")


def _walk(folder: Path, generator: str, way: list[Any]) -> dict[str, Any]:
    """A walk; then from a snapshot in the middle, and from a saved world, to its end again.

    Raises:
        RuntimeError: they do not end alike.
    """
    world = doors.make_world(CLIP, generator, {}, seed=5)
    seen, half = [world.reset()], len(way) // 2
    seen += [world.step(motion) for motion in way[:half]]
    snapshot = world.snapshot()
    world.save(folder / "saved")
    end = [world.step(motion) for motion in way[half:]]
    values = {**_shown(seen + end, "walk"), **_map(world, "map"), **contents(folder / "saved", "saved")}
    world.restore(snapshot)
    for name, other in (("restored", world), ("loaded", doors.load_world("saved"))):
        again = _shown([other.step(motion) for motion in way[half:]], "walk")
        first = _shown(end, "walk")
        if not all(np.array_equal(first[key], again[key]) for key in first):
            raise RuntimeError(f"{generator}: a {name} world does not go on as the first one did")
    return values


def _forward() -> Any:
    return doors.motion([0.02, 0, 0.1], [0, 0, 0.02])


def _turn() -> Any:
    return doors.motion([0, 0.01, 0], [0, 0.3, 0])


def _shown(observations: list[Any], name: str) -> dict[str, np.ndarray]:
    """All frames of some steps, one after another; the first axis of each array."""
    return {
        f"{name}/{field}": np.concatenate([np.atleast_1d(getattr(observation, field)) for observation in observations])
        for field in SHOWN
    }


def _map(world: Any, name: str) -> dict[str, np.ndarray]:
    return {
        f"{name}/points_m": world.map.points_m,
        f"{name}/rgb_u8": world.map.rgb_u8,
        f"{name}/planning_grid": world.map.planning_grid().cells,
    }
