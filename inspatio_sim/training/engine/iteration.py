"""One step of training as a stage sees it: micro-batches, random numbers, backward passes, updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from inspatio_sim.training.engine.distributed import Ranks

Batch = TypeVar("Batch")
Source = Callable[[list[int]], Batch]
"""Makes a batch of the samples with these numbers, 0 and up without end; the same numbers give the same batch."""


class SampleRandom:
    """Random numbers that belong to the samples of a batch: the same whichever rank or micro-batch a sample is in.

    Args:
        seeds: one a sample.
        device: where the numbers are drawn.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        """Of the standard normal distribution. [B, *shape]"""
        return self._stacked(lambda generator: torch.randn(shape, generator=generator, device=self._device))

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1). [B, *shape]"""
        return self._stacked(lambda generator: torch.rand(shape, generator=generator, device=self._device))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers 0 .. high - 1, int64. [B, *shape]"""
        return self._stacked(lambda generator: torch.randint(high, shape, generator=generator, device=self._device))

    def _stacked(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(generator) for generator in self._generators])


@dataclass(frozen=True, kw_only=True)
class MicroBatch(Generic[Batch]):
    """What this rank computes with between two backward passes."""

    data: Batch
    random: SampleRandom


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which samples a step has. One step takes `world_size * accumulate * batch_size` samples that follow on another.

    The ranks share them out in such a way that a step sees the same samples whatever the number of ranks, as long as
    that product is the same. All follows from the step, so a run that goes on needs no position in the data.
    """

    seed: int
    batch_size: int  # samples a rank computes at a time
    accumulate: int  # micro-batches a rank adds up before an update

    def samples(self, step_idx: int, micro_idx: int, ranks: Ranks) -> list[int]:
        """The numbers of the samples of one micro-batch of one rank."""
        first = ((step_idx * self.accumulate + micro_idx) * ranks.world_size + ranks.rank) * self.batch_size
        return list(range(first, first + self.batch_size))

    def sample_random(self, samples: list[int], step_idx: int, update_idx: int, device: torch.device) -> SampleRandom:
        """The random numbers of these samples in one update of a step."""
        keys = [[self.seed, step_idx, update_idx, sample] for sample in samples]
        seeds = [int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) for key in keys]
        return SampleRandom(seeds, device)


class Updater(Protocol):
    """What a step needs of its trainer."""

    def begin(self, optimiser: str) -> None:
        """Forget gradients of before."""
        ...

    def finish(self, optimiser: str) -> None:
        """Clip, look for NaN, and move the weights."""
        ...

    def note(self, name: str, value: Tensor | float) -> None:
        """Add to the metrics."""
        ...


class Iteration:
    """One step: what `Stage.step` works with.

    Attributes:
        step_idx: steps done before this one.
        shared: random numbers that are the same on all ranks.
        device: of this rank.
    """

    def __init__(self, step_idx: int, plan: BatchPlan, ranks: Ranks, updater: Updater) -> None:
        self.step_idx = step_idx
        self.shared = np.random.default_rng([plan.seed, step_idx])
        self.device = ranks.device
        self._plan = plan
        self._ranks = ranks
        self._updater = updater
        self._num_updates = 0

    def update(self, optimiser: str, source: Source[Batch]) -> Iterator[MicroBatch[Batch]]:
        """One update of the weights an optimiser has: `for batch in step.update("adam", clips): step.backward(...)`.

        Gives the micro-batches of the step and, when the loop has gone through all of them, clips the gradients and
        moves the weights. A loop left early (break, return, an error) moves nothing. A step can have several updates:
        they see the same samples, with other random numbers.

        Args:
            optimiser: its name in `Stage.optimisers`.
            source: of the data.
        """
        update_idx = self._num_updates
        self._num_updates += 1
        self._updater.begin(optimiser)
        for micro_idx in range(self._plan.accumulate):
            samples = self._plan.samples(self.step_idx, micro_idx, self._ranks)
            random = self._plan.sample_random(samples, self.step_idx, update_idx, self.device)
            with torch.autocast(self.device.type, enabled=False):  # geometry in bfloat16 would be off by pixels
                data = source(samples)
            yield MicroBatch(data=data, random=random)
        self._updater.finish(optimiser)

    def backward(self, tensor: Tensor, gradient: Tensor | None = None) -> None:
        """Add to the gradients of the weights, as this micro-batch's share of the mean over the step's samples.

        Args:
            tensor: a loss, the mean over the micro-batch; or any tensor with the loss's gradient by it.
            gradient: None for a loss.
        """
        seed = torch.ones_like(tensor) if gradient is None else gradient
        with torch.autocast(self.device.type, enabled=False):  # it has its say in the forward pass alone
            tensor.backward(seed / self._plan.accumulate)

    def log(self, **values: Tensor | float) -> None:
        """Note numbers for the metrics, such as `loss=loss`; what is logged several times is averaged."""
        for name, value in values.items():
            self._updater.note(name, value)


def shuffled(sample: int, length: int, seed: int) -> int:
    """Where an endless count of samples stands in a data set of limited length: each epoch in an order of its own.

    Args:
        sample: number of the sample, 0 and up.
        length: of the data set.
        seed: of the orders.

    Returns:
        Index in the data set, 0 .. length - 1. Within an epoch each comes once.
    """
    epoch, position = divmod(sample, length)
    return int(np.random.default_rng([seed, epoch]).permutation(length)[position])
