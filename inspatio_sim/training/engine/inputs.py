"""What any stage is built from: a config, this process among its peers, earlier results; networks made ready."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.compiled import HasBlocks, compile_blocks
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import AnyRun, Family
from inspatio_sim.training.engine.iteration import Batch, BatchPlan, Source
from inspatio_sim.training.engine.prefetch import Prefetched
from inspatio_sim.training.engine.results import Result, found_result

Module = TypeVar("Module", bound=nn.Module)


@dataclass(kw_only=True)
class StageInputs(Generic[AnyRun]):
    """What a stage is built from; each family adds its networks and data."""

    compiled_calls: ClassVar[Sequence[str]] = ("forward",)  # methods of blocks
    recomputed_calls: ClassVar[Sequence[str]] = ("forward",)

    family: Family[AnyRun]
    config: AnyRun
    ranks: Ranks
    start: Path | None = None  # weights that the trained network begins with, in place of the usual ones
    progress: Progress | None = None

    @property
    def num_samples(self) -> int:
        """That the run will see."""
        trainer = self.config.trainer
        return trainer.max_steps * trainer.batch_size * trainer.accumulate * self.ranks.world_size

    def found(self, stage: str) -> Result:
        """What an earlier stage left."""
        return found_result(self.family, self.config, stage)

    def prefetched(self, source: Source[Batch], *, every: int = 1) -> Prefetched[Batch]:
        """A source that works ahead of the steps; see `Prefetched` for `every`."""
        trainer = self.config.trainer
        plan = BatchPlan(seed=trainer.seed, batch_size=trainer.batch_size, accumulate=trainer.accumulate)
        return Prefetched(source, plan, world_size=self.ranks.world_size, every=every)

    def compiled(self, network: Module) -> Module:
        """A transformer on this rank's device, made faster, in place, if that is asked for."""
        network.to(self.ranks.device)
        if self.config.compile:
            if self.ranks.device.type == "cpu" and not (os.environ.get("CXX") or shutil.which("g++")):
                raise InputError("compile=true: no C++ compiler found: install g++, or set compile=false")
            compile_blocks(cast("HasBlocks", network), self.compiled_calls)
        return network

    def trained(self, network: Module) -> Module:
        """A transformer made ready for gradients, in place."""
        self.compiled(network)
        if self.config.checkpoint_activations:
            recompute_blocks(cast("HasBlocks", network), self.recomputed_calls)
        return network.requires_grad_(True).train()


def recompute_blocks(transformer: HasBlocks, calls: Sequence[str]) -> None:
    """Keep only what goes into each block for the backward pass, and compute the block again there."""
    for block in transformer.blocks:
        for name in calls:
            setattr(block, name, _recomputed(getattr(block, name)))


def filled_copy(network: Module, source: Module) -> Module:
    """A network, with the weights of another."""
    network.load_state_dict(source.state_dict())
    return network


def _recomputed(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return method(*args, **kwargs)
        return checkpoint(method, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return call
