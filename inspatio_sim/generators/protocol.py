"""What every generator offers, from plain inpainting to the video student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.reference.reference import Reference

GeneratorState = Any
"""All that one world's generation depends on beside its conditions. Only its generator looks inside; it is
never changed in place, so whoever keeps one can go back to it."""

PackedState = dict[str, np.ndarray]
"""A state as arrays, so that it can be saved."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One block for each world of a batch."""

    frames_u8: list[NDArray[np.uint8]]  # per world. [F, H, W, 3]
    states: list[GeneratorState]  # to go on from
    seconds: Mapping[str, float] = field(default_factory=dict)  # wall time of the generator's own stages


class Generator(Protocol):
    """Completes renders to frames, for a batch of worlds at once."""

    @property
    def name(self) -> str:
        """As `generator_by_name` has it; a world of any other name cannot be saved."""
        ...

    @property
    def memory_plan(self) -> Mapping[str, int]:
        """Bytes that it was expected to need, part by part and in total; empty where that was not planned."""
        ...

    @property
    def first_block_frames(self) -> int:
        """Frames of a world's first block (F): its first condition holds as many views."""
        ...

    @property
    def frames_per_block(self) -> int:
        """Frames of every later block."""
        ...

    @property
    def best_size_px(self) -> tuple[int, int]:
        """Height and width of the frames it makes best; a world's may be others."""
        ...

    @property
    def looks_real(self) -> bool:
        """Whether it makes up pictures of the place, rather than smearing holes in from their borders."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """What `generator_by_name` needs to make this generator again; fit for JSON."""
        ...

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> GeneratorState:
        """The state of a world that has generated nothing yet.

        Args:
            reference: the clip with geometry.
            seed: of everything random in this world.
            prompt: what the world should look like; generators without text ignore it.
        """
        ...

    def generate(self, conditions: Sequence[Condition], states: Sequence[GeneratorState]) -> Generation:
        """One block for each world; worlds that begin and worlds that go on may be mixed.

        Raises:
            NotEnoughMemory: the batch does not fit; nothing has changed.
            GenerationFailed: a network gave NaN or infinity; nothing has changed.
        """
        ...

    def observe(self, state: GeneratorState, observation: Observation, reference: Reference) -> GeneratorState:
        """The state once its block has depth, for a generator that remembers more than it made.

        Called for every block before the map learns it; worlds of a batch may be observed at the same time, from
        different threads. What it raises, the step raises, and no world has changed.

        Args:
            state: after the block.
            observation: the block as the world hands it out, but for its timing.
            reference: the one the state began with.
        """
        ...

    def pack(self, state: GeneratorState) -> PackedState:
        """A state as arrays; small: what can be computed again is not in it."""
        ...

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> GeneratorState:
        """The state that `pack` was given, bit for bit; `reference` is the one it began with."""
        ...
