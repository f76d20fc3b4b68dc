"""Batches that are made while the step before them runs."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic

from inspatio_sim.training.engine.iteration import Batch, BatchPlan, Source


class Prefetched(Generic[Batch]):
    """A source whose next batch is made by a thread while the step runs; the same batches as without.

    A step may ask for its batches again (another update), so those of one step are kept.
    """

    def __init__(self, source: Source[Batch], plan: BatchPlan, *, world_size: int = 1, every: int = 1) -> None:
        """`every`: the source serves every n-th step, such as one of n tasks that take turns."""
        self._source, self._plan, self._world_size, self._every = source, plan, world_size, every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._batches: OrderedDict[tuple[int, ...], Future[Batch]] = OrderedDict()

    def __call__(self, samples: list[int]) -> Batch:
        batch = self._begun(samples)
        self._begun(self._following(samples))
        while len(self._batches) > self._plan.accumulate + 1:
            self._batches.popitem(last=False)
        return batch.result()

    def _begun(self, samples: list[int]) -> Future[Batch]:
        key = tuple(samples)
        if key not in self._batches:
            self._batches[key] = self._thread.submit(self._source, samples)
        self._batches.move_to_end(key)
        return self._batches[key]

    def _following(self, samples: list[int]) -> list[int]:
        """What comes after these: the step's next micro-batch, or the first of the next step."""
        plan = self._plan
        ahead = plan.batch_size * self._world_size
        micro_idx = samples[0] // ahead % plan.accumulate
        if micro_idx + 1 == plan.accumulate:
            ahead *= 1 + (self._every - 1) * plan.accumulate
        return [sample + ahead for sample in samples]
