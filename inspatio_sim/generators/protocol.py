"""What every generator offers, from plain inpainting to the video student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition import Condition
from inspatio_sim.reference import Reference

GeneratorState = dict[str, np.ndarray]
"""All that one world's generation depends on beside its conditions; arrays, so that it can be saved."""


class Generator(Protocol):
    """Completes renders to frames, for a batch of worlds at once."""

    @property
    def frames_per_block(self) -> int:
        """Frames made by one call: every condition holds this many views (F)."""
        ...

    def begin(self, reference: Reference, seed: int) -> GeneratorState:
        """The state of a world that has generated nothing yet."""
        ...

    def generate(
        self, conditions: Sequence[Condition], states: Sequence[GeneratorState]
    ) -> tuple[list[NDArray[np.uint8]], list[GeneratorState]]:
        """One block for each world: frames [F, H, W, 3] and the state to go on from."""
        ...
