"""A walk about the demo room that never ends and never repeats: to and fro, ahead and back, round and round."""

from __future__ import annotations

import numpy as np

from benchmarks.star_cases.steps import start
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.motion.camera import Array, PoseDelta, inverse, se3_exp
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World

ACROSS_M, AHEAD_M = 0.6, 0.5  # to either side of where the clip begins, and before and behind it
STEPS_ACROSS, STEPS_AHEAD, STEPS_AROUND, STEPS_OF_SWAY = 173, 131, 307, 71  # of a period each; no two share a divisor
SWAY_RAD = 0.3  # of the direction of view, around its steady turn


def pose_at(step_idx: int) -> Array:
    """Where the camera is after so many steps, from the clip's first camera; a step is 4 cm and 3 degrees at most.

    [4, 4]
    """
    across, ahead, around, sway = (
        2 * np.pi * step_idx / period for period in (STEPS_ACROSS, STEPS_AHEAD, STEPS_AROUND, STEPS_OF_SWAY)
    )
    pose = se3_exp(np.array([0, 0, 0, 0, around + SWAY_RAD * np.sin(sway), 0]))
    pose[:3, 3] = [ACROSS_M * np.sin(across), 0, AHEAD_M * np.sin(ahead)]
    return pose


def motion_at(step_idx: int) -> PoseDelta:
    """The motion of a step."""
    return PoseDelta.from_matrix(inverse(pose_at(step_idx)) @ pose_at(step_idx + 1))


def walkers(generator: Generator, reference: Reference, batch: int) -> list[World]:
    """Worlds that have shown their first frame; nothing stands in their way, so that all go the same one."""
    return start(generator, reference, batch, WorldConfig(collisions="off"))
