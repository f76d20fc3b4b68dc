"""Geometry only: the render as it is, holes filled by inpainting. No weights, no randomness.

The fast rung of the ladder, and the baseline that every network must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition import Condition
from inspatio_sim.generators.protocol import GeneratorState
from inspatio_sim.reference import Reference

INPAINT_RADIUS_PX = 2.0


@dataclass(frozen=True, kw_only=True)
class WarpGenerator:
    """Fills what the render does not know with Telea's fast-marching inpainting (OpenCV)."""

    frames_per_block: int = 1

    def begin(self, reference: Reference, seed: int) -> GeneratorState:
        del reference, seed  # the same render always gives the same frame
        return {}

    def generate(
        self, conditions: Sequence[Condition], states: Sequence[GeneratorState]
    ) -> tuple[list[NDArray[np.uint8]], list[GeneratorState]]:
        blocks = [
            np.stack([inpaint(render, ~mask) for render, mask in zip(c.render_u8, c.is_rendered, strict=True)])
            for c in conditions
        ]
        return blocks, list(states)


def inpaint(image_u8: NDArray[np.uint8], is_hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill the holes of one image from their borders; a wholly unknown image becomes mid-gray."""
    if not is_hole.any():
        return image_u8
    if is_hole.all():
        return np.full_like(image_u8, 127)
    filled = cv2.inpaint(image_u8, is_hole.astype(np.uint8), INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return np.asarray(filled, dtype=np.uint8)
