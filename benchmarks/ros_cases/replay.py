"""The node with a world that shows frames it made before, so that nothing but sending takes time.

python -m benchmarks.ros_cases.replay --ros-args -p PARAMETER:=VALUE ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from inspatio_ros import loading, main, node
from inspatio_ros.parameters import Parameters

from inspatio_sim.condition.observation import Observation
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.source import ClipSource
from inspatio_sim.world.world import World

NUM_FRAMES = 24  # then back again
MOTION = PoseDelta.from_twist([0.02, 0, 0.02], [0, 0.01, 0], 1.0)


class ReplayedWorld:
    """A world that is reset and steps like any other, but to and fro over the frames of its first steps."""

    def __init__(self, world: World) -> None:
        self._world = world
        first = world.reset()
        made = [first, *(world.step([MOTION]) for _ in range(NUM_FRAMES - 1))]
        self._observations = [*made, *made[-2:0:-1]]
        self._num_steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def reset(self, *, seed: int | None = None) -> Observation:
        self._num_steps = 0
        return self._observations[0]

    def step(self, action: Sequence[PoseDelta], time: ClockMode | None = None) -> Observation:
        self._num_steps += 1
        return replace(self._observations[self._num_steps % len(self._observations)], has_collided=False)


def load_replayed(parameters: Parameters, progress: Progress) -> tuple[ReplayedWorld, ClipSource]:
    world, source = loading.load_world(parameters, progress)
    progress("making the frames", 0.0)
    return ReplayedWorld(world), source


if __name__ == "__main__":
    node.load_world = load_replayed  # all else of the node is as it ships
    sys.exit(main.main())
