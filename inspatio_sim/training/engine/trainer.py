"""The loop that trains any stage: steps, metrics, samples, checkpoints, and going on after a kill."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.pictures import save_png
from inspatio_sim.training.engine.checkpoint import (
    Tensors,
    latest_checkpoint,
    load_numbers,
    load_optimiser_state,
    load_tensors,
    optimiser_state,
    random_state,
    remove_unfinished,
    save_checkpoint,
    set_random_state,
)
from inspatio_sim.training.engine.distributed import Ranks, fill, gathered, shard, whole
from inspatio_sim.training.engine.ema import Ema
from inspatio_sim.training.engine.iteration import BatchPlan, Iteration
from inspatio_sim.training.engine.metrics import Metrics, StepCallback

logger = logging.getLogger(__name__)


class TrainingStopped(InputError):
    """A gradient or a weight became NaN or infinite; the message names the last good checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A module that a stage trains."""

    module: nn.Module
    entry_points: tuple[str, ...] = ("forward",)  # methods through which it is called
    is_averaged: bool = False  # keep a moving average of its weights


class Stage(Protocol):
    """What one stage of training trains, and how one step of it goes."""

    def modules(self) -> Mapping[str, Trained]:
        """What is trained, by the names of its files in checkpoints. The same weights for the same seed."""
        ...

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """By name, over weights of `modules`; asked for once, when the modules are where they will be trained."""
        ...

    def step(self, step: Iteration) -> None:
        """One step, which may have several updates, or none of some optimiser."""
        ...

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        """Pictures that show how far it is, by name; run on every rank, with the moving averages. [H, W, 3]"""
        ...

    def state(self) -> Mapping[str, int | float]:
        """Its own counters, if it has any."""
        ...

    def load_state(self, state: Mapping[str, int | float]) -> None:
        """Go on with what `state` gave."""
        ...


class StageDefaults:
    """A stage without counters or pictures, unless it says otherwise."""

    def state(self) -> Mapping[str, int | float]:
        return {}

    def load_state(self, state: Mapping[str, int | float]) -> None:
        del state

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        return {}


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """AdamW."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def make(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How a stage is trained. An update is over `batch_size * accumulate * ranks` samples."""

    out: Path  # folder of the run: metrics.csv, samples, checkpoints
    max_steps: int
    batch_size: int  # samples a rank computes at a time
    accumulate: int = 1  # micro-batches a rank adds up before an update
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the products in forward passes; weights stay what they are
    clip_norm: float = 1.0  # longest gradient of an update, over all weights of its optimiser
    warmup_updates: int = 0  # updates of an optimiser until its learning rate is full
    final_lr: float = 1.0  # share of the learning rate that is left at max_steps, reached along a cosine
    ema_decay: float = 0.999
    ema_start: int = 0  # steps before which the moving averages follow the weights exactly
    log_every: int = 10  # steps a row of metrics
    sample_every: int = 0  # steps between sample pictures; 0 = none
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    resume: bool = False  # go on from the newest checkpoint in `out`, if there is one

    def __post_init__(self) -> None:
        at_least_1 = ("max_steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints")
        least = {
            **dict.fromkeys(at_least_1, 1),
            **dict.fromkeys(("seed", "warmup_updates", "ema_start", "sample_every"), 0),
        }
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise InputError(f"{name}={getattr(self, name)}: want at least {minimum}")
        for name in ("ema_decay", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: want 0 to 1")
        if not self.clip_norm > 0:
            raise InputError(f"clip_norm={self.clip_norm}: want more than 0 (inf: no clipping)")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype={self.dtype!r}: want float32 or bfloat16")


class Trainer:
    """Trains a stage. It alone clips, averages, looks for NaN, and reads and writes checkpoints.

    Args:
        stage: built alike on every rank; its modules are moved to this rank's device, and split over several.
        config: of the run.
        ranks: this process among its peers.
        settings: all settings of the run as plain values, kept in its checkpoints.

    Raises:
        InputError: there are checkpoints in `out` and `resume` is not asked for, or they do not fit the stage.
    """

    def __init__(
        self, stage: Stage, config: TrainerConfig, ranks: Ranks | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.stage = stage
        self.config = config
        self.ranks = ranks or Ranks()
        self.steps_done = 0
        self._settings = dict(settings or {})
        self._checkpoints = config.out / "checkpoints"
        self._plan = BatchPlan(seed=config.seed, batch_size=config.batch_size, accumulate=config.accumulate)
        self._metrics = Metrics(config.out, self.ranks)
        if self.ranks.is_main:
            remove_unfinished(self._checkpoints)
        self.ranks.wait()
        self._last_good = latest_checkpoint(self._checkpoints)
        if self._last_good and not config.resume:
            raise InputError(f"{config.out} holds a run ({self._last_good.name}): want resume, or another folder")

        self.modules: dict[str, nn.Module] = {}
        self.averages: dict[str, Ema] = {}
        for name, trained in stage.modules().items():
            shard(trained.module, trained.entry_points, self.ranks)
            self.modules[name] = trained.module
            if trained.is_averaged:
                self.averages[name] = Ema(trained.module, config.ema_decay)
        named = {f"{name}.{key}": p for name, module in self.modules.items() for key, p in module.named_parameters()}
        self._names = {id(parameter): name for name, parameter in named.items()}
        self.optimisers = dict(stage.optimisers())
        self._updates = dict.fromkeys(self.optimisers, 0)
        self._full_lr: dict[str, list[float]] = {}
        for name, optimiser in self.optimisers.items():
            unsaved = [p.shape for group in optimiser.param_groups for p in group["params"] if id(p) not in self._names]
            assert not unsaved, f"optimiser {name} moves weights of no module of the stage: {unsaved}"
            self._full_lr[name] = [group["lr"] for group in optimiser.param_groups]

        self._seed_global_random()
        if self._last_good:
            self._load(self._last_good)

    def run(self, on_step: StepCallback | None = None) -> None:
        """Train up to `max_steps`.

        Args:
            on_step: called before the first step and after each. KeyboardInterrupt from it saves what was done.

        Raises:
            TrainingStopped: NaN or infinity; the checkpoints are all from before it.
        """
        config = self.config
        self._metrics.open(self.steps_done)
        try:
            self._report(on_step)
            while self.steps_done < config.max_steps:
                start = time.perf_counter()
                with self._products_in_low_precision():
                    self.stage.step(Iteration(self.steps_done, self._plan, self.ranks, self))
                self._metrics.add("step_s", time.perf_counter() - start)
                self.steps_done += 1
                is_last = self.steps_done == config.max_steps
                if self.steps_done % config.log_every == 0 or is_last:
                    self._metrics.write(self.steps_done, self._learning_rates())
                if config.sample_every and (self.steps_done % config.sample_every == 0 or is_last):
                    self._sample()
                if self.steps_done % config.checkpoint_every == 0 or is_last:
                    self.save()
                self._report(on_step)
        finally:
            self._metrics.close()

    # What an Iteration calls.

    def begin(self, optimiser: str) -> None:
        """Forget gradients of before."""
        self.optimisers[optimiser].zero_grad(set_to_none=True)

    def finish(self, optimiser: str) -> None:
        """Clip the gradients, look for NaN, move the weights and their averages."""
        chosen = self.optimisers[optimiser]
        parameters = [parameter for group in chosen.param_groups for parameter in group["params"]]
        norm = float(whole(nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)))
        if self.ranks.any(not math.isfinite(norm)):
            self._stop(f"gradient of {optimiser}")
        for group, lr in zip(chosen.param_groups, self._full_lr[optimiser], strict=True):
            group["lr"] = lr * self._share_of_lr(self._updates[optimiser])
        chosen.step()
        chosen.zero_grad(set_to_none=True)
        self._updates[optimiser] += 1
        self.note(f"{optimiser}_gradient", norm)
        moved = {self._names[id(parameter)].split(".", 1)[0] for parameter in parameters}
        for name in moved & self.averages.keys():
            self.averages[name].update(has_started=self.steps_done >= self.config.ema_start)

    def note(self, name: str, value: Tensor | float) -> None:
        """Add to the metrics."""
        self._metrics.add(name, value)

    # Checkpoints.

    def save(self) -> None:
        """Write a checkpoint of all there is; unless a weight is NaN or infinite."""
        tensors: dict[str, Tensors] = {}
        groups: dict[str, Any] = {}
        for name, module in self.modules.items():
            tensors[name] = {key: gathered(tensor, self.ranks) for key, tensor in module.state_dict().items()}
        for name, average in self.averages.items():
            tensors[f"{name}.ema"] = {key: gathered(tensor, self.ranks) for key, tensor in average.tensors.items()}
        for name, optimiser in self.optimisers.items():
            tensors[f"{name}.optimiser"], groups[name] = optimiser_state(optimiser, self._names, self.ranks)
        for stem, named in tensors.items():
            bad = [name for name, x in named.items() if self.ranks.is_main and not torch.isfinite(x).all()]
            if self.ranks.any(bool(bad)):
                self._stop(f"{bad[0] if bad else 'a weight'} of {stem}")
        own = {"random": random_state(self.ranks.device), "metrics": self._metrics.state()}
        numbers = {
            "settings": self._settings,
            "trainer": {**dataclasses.asdict(self.config), "out": str(self.config.out)},
            "stage": dict(self.stage.state()),
            "updates": self._updates,
            "optimisers": groups,
            "ranks": self.ranks.gather(own),
        }
        if self.ranks.is_main:
            save_checkpoint(self._checkpoints, self.steps_done, tensors, numbers, keep=self.config.keep_checkpoints)
        self.ranks.wait()
        self._last_good = latest_checkpoint(self._checkpoints)

    def _load(self, path: Path) -> None:
        numbers = load_numbers(path)
        for name, module in self.modules.items():
            state = module.state_dict()
            for key, saved_tensor in load_tensors(path, name, state).items():
                fill(state[key], saved_tensor)
        for name, average in self.averages.items():
            average.load(load_tensors(path, f"{name}.ema", average.tensors))
        for name, optimiser in self.optimisers.items():
            memory = load_tensors(path, f"{name}.optimiser")
            load_optimiser_state(optimiser, self._names, memory, numbers["optimisers"][name])
        self.stage.load_state(numbers["stage"])
        self._updates = {name: int(numbers["updates"][name]) for name in self.optimisers}
        self.steps_done = numbers["step"]
        saved = numbers["ranks"]
        if len(saved) == self.ranks.world_size:
            own = saved[self.ranks.rank]
            set_random_state(own["random"], self.ranks.device)
            self._metrics.load_state(own["metrics"])
        else:  # each rank takes the numbers of all: their mean stays what it was
            self._seed_global_random()
            names = saved[0]["metrics"]
            self._metrics.load_state({name: [x for own in saved for x in own["metrics"][name]] for name in names})
        logger.info("going on from %s", path)

    # The rest of a step.

    def _seed_global_random(self) -> None:
        """Differently on each rank, for layers that draw by themselves (dropout)."""
        key = [self.config.seed, self.steps_done, self.ranks.rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def _products_in_low_precision(self) -> torch.autocast:
        """Without its cache of cast weights, which would outlive an update, and carry no-grad casts into grad code."""
        is_on = self.config.dtype == "bfloat16"
        return torch.autocast(self.ranks.device.type, dtype=torch.bfloat16, enabled=is_on, cache_enabled=False)

    def _share_of_lr(self, updates: int) -> float:
        """Linear warm-up, then a cosine from 1 to `final_lr` over the steps of the run."""
        config = self.config
        warmup = min(1.0, (updates + 1) / (config.warmup_updates + 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.steps_done / config.max_steps))
        return warmup * (config.final_lr + (1 - config.final_lr) * cosine)

    def _learning_rates(self) -> dict[str, float]:
        return {f"{name}_lr": optimiser.param_groups[0]["lr"] for name, optimiser in self.optimisers.items()}

    def _sample(self) -> None:
        """Pictures by the averaged weights; training's random numbers go on as if there had been none."""
        device = self.ranks.device
        forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with self._averaged_weights(), forked, torch.no_grad(), self._products_in_low_precision():
            pictures = self.stage.sample()
        if self.ranks.is_main:
            for name, picture in pictures.items():
                save_png(self.config.out / "samples" / f"{name}_{self.steps_done:08d}.png", picture)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        with ExitStack() as stack:
            for average in self.averages.values():
                stack.enter_context(average.applied())
            yield

    def _report(self, on_step: StepCallback | None) -> None:
        if on_step is None:
            return
        try:
            on_step(self.steps_done, self.config.max_steps, self._metrics.newest)
        except KeyboardInterrupt:
            if self.ranks.world_size == 1:  # several ranks are not interrupted at the same step
                self.save()
            raise

    def _stop(self, what: str) -> None:
        good = f"the last good checkpoint is {self._last_good}" if self._last_good else "there is no checkpoint yet"
        raise TrainingStopped(
            f"step {self.steps_done + 1}: {what} is NaN or infinite; {good}: want a lower learning rate or clip_norm"
        )
