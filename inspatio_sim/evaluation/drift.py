"""Whether a long video stays what it was: one that repeats the same views over and over should repeat its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.fidelity import flicker
from inspatio_sim.motion.camera import Array


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Statistics of every whole round of a video that shows the same views in each. N rounds"""

    mean: Array  # grey levels. [N]
    variance: Array  # of all pixels, in grey levels squared. [N]
    change: Array  # from frame to frame, in grey levels. [N]

    @classmethod
    def of(cls, frames_u8: NDArray[np.uint8], frames_per_round: int) -> Rounds:
        """Cut a video [T, H, W, 3] into rounds; frames after the last whole one are left out."""
        num_rounds = len(frames_u8) // frames_per_round if frames_per_round > 1 else 0
        if num_rounds < 1:
            raise InputError(
                f"{len(frames_u8)} frames in rounds of {frames_per_round}: want whole rounds of 2 frames or more"
            )
        rounds = np.split(frames_u8[: num_rounds * frames_per_round], num_rounds)
        return cls(
            mean=np.array([frames.mean(dtype=np.float64) for frames in rounds]),
            variance=np.array([_variance(frames) for frames in rounds]),
            change=np.array([flicker(frames) for frames in rounds]),
        )


def worst_departure(values: Array) -> float:
    """The largest departure from the first value, as a share of it. [N] -> 0.1 for 10 %"""
    return float(np.abs(values - values[0]).max() / max(abs(values[0]), 1e-9))


def _variance(frames_u8: NDArray[np.uint8]) -> float:
    """Over all pixels and channels, from a histogram: exact, and without a copy in floats."""
    counts = np.bincount(frames_u8.ravel(), minlength=256).astype(np.float64)
    levels = np.arange(256)
    mean = (counts * levels).sum() / counts.sum()
    return float((counts * (levels - mean) ** 2).sum() / counts.sum())
