"""Geometry only: the render as it is, holes filled by inpainting. No weights, no randomness.

The fast rung of the ladder, and the baseline that every network must beat.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.generators.options import WarpOptions
from inspatio_sim.generators.protocol import Generation, GeneratorState, PackedState
from inspatio_sim.kernels import run_chunks
from inspatio_sim.reference.reference import Reference

INPAINT_RADIUS_PX = 2.0


@dataclass(frozen=True, kw_only=True)
class WarpGenerator(WarpOptions):
    """Fills what the render does not know with Telea's fast-marching inpainting (OpenCV)."""

    name: ClassVar[str] = "warp"
    memory_plan: ClassVar[Mapping[str, int]] = {}

    @property
    def first_block_frames(self) -> int:
        return self.frames_per_block

    @property
    def looks_real(self) -> bool:
        return False

    @property
    def options(self) -> dict[str, Any]:
        return {"frames_per_block": self.frames_per_block}

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> GeneratorState:
        del reference, seed, prompt  # the same render always gives the same frame
        return None

    def generate(self, conditions: Sequence[Condition], states: Sequence[GeneratorState]) -> Generation:
        started_s = time.perf_counter()
        views = [view for c in conditions for view in zip(c.render_u8, ~c.is_rendered, strict=True)]
        frames = iter(run_chunks(inpaint, views))
        frames_u8 = [np.stack([next(frames) for _ in c.render_u8]) for c in conditions]
        return Generation(
            frames_u8=frames_u8, states=list(states), seconds={"inpaint": time.perf_counter() - started_s}
        )

    def observe(self, state: GeneratorState, observation: Observation, reference: Reference) -> GeneratorState:
        del observation, reference
        return state

    def pack(self, state: GeneratorState) -> PackedState:
        del state
        return {}

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> GeneratorState:
        del arrays, reference
        return None


def inpaint(image_u8: NDArray[np.uint8], is_hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill the holes of one image from their borders; a wholly unknown image becomes mid-gray."""
    if not is_hole.any():
        return image_u8
    if is_hole.all():
        return np.full_like(image_u8, 127)
    filled = cv2.inpaint(image_u8, is_hole.astype(np.uint8), INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return np.asarray(filled, dtype=np.uint8)
