"""What stages leave: written with notes on their origin, found again by later stages, or what stands in for it."""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.keys import compare
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.training.engine.distributed import gathered
from inspatio_sim.training.engine.family import AnyRun, Family
from inspatio_sim.training.engine.trainer import Trainer

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Weights that a stage begins with or works against."""

    stage: str  # that they are the result of
    kind: Literal["run", "shipped", "published", "random"]
    path: Path | None  # None: random numbers

    @property
    def shown(self) -> str:
        """In words."""
        return str(self.path) if self.kind == "run" else f"{self.kind}: {self.path or 'seeded numbers, never trained'}"


def result_path(family: Family[AnyRun], config: AnyRun, stage: str) -> Path:
    """Where a stage leaves its averaged weights."""
    return config.folder / stage / f"{family.result_name(config, stage)}.safetensors"


def find_result(family: Family[AnyRun], config: AnyRun, stage: str) -> Result | None:
    """The result of a stage: of this run, else as shipped with the package or published, else random if allowed."""
    own = result_path(family, config, stage)
    if own.is_file():
        return Result(stage=stage, kind="run", path=own)
    for name in family.stand_ins(config, stage):
        shipped = find.SHIPPED / config.name / f"{name}.safetensors"
        if shipped.is_file() and _fits(shipped, family, config, stage):
            return Result(stage=stage, kind="shipped", path=shipped)
    published = family.published(config, stage)
    if published and published.path:
        return Result(stage=stage, kind="published", path=published.path)
    return Result(stage=stage, kind="random", path=None) if config.random_stand_ins else None


def found_result(family: Family[AnyRun], config: AnyRun, stage: str) -> Result:
    """The same, which has to be there.

    Raises:
        InputError: it is not; names the stage to run first.
    """
    result = find_result(family, config, stage)
    if result is None:
        want = f"run {family.command(family.stages[stage].key, config)} first"
        if published := family.published(config, stage):
            want += f"; or have {published.missing}; and name the folder in {find.ENVIRONMENT}"
        path = result_path(family, config, stage)
        raise InputError(f"{path}: no such file, and none is shipped that fits: {want}")
    return result


def network_from(make: Callable[[], Module], result: Result, *, seed: int, is_widened: bool = False) -> Module:
    """A network with the weights of a result.

    Args:
        make: builds it.
        result: random ones are as `make` leaves them, the same for the same seed and stage.
        seed: of random weights.
        is_widened: see `load_weights`.
    """
    if result.path is None:
        with torch.random.fork_rng(devices=[]):
            key = [seed, zlib.crc32(result.stage.encode())]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
            return make()
    with torch.device("meta"):
        network = make()
    load_weights(network, result.path, dtype=torch.float32, widen=is_widened)
    return network


def steps_of(path: Path) -> int:
    """How many steps made a result; 0 if it is not there, or does not say."""
    if not path.is_file():
        return 0
    with open_checkpoint(path) as checkpoint:
        notes = checkpoint.metadata
    return int({**notes, **json.loads(notes.get("notes", "{}"))}.get("steps", 0))  # a depth network's are in "notes"


def save_result(family: Family[AnyRun], config: AnyRun, stage: str, trainer: Trainer) -> None:
    """The averaged weights of what a stage is about, with notes on their origin; every rank has to ask."""
    (average,) = trainer.averages.values()
    tensors = {name: gathered(tensor, trainer.ranks) for name, tensor in average.tensors.items()}
    if not trainer.ranks.is_main:
        return
    how = plain(config.trainer)
    del how["out"], how["resume"]  # the same weights, wherever they were trained and however often that was broken off
    notes = {
        "config": config.name,
        "stage": stage,
        "steps": trainer.steps_done,
        "weights": "moving average",
        "seed": config.seed,
        "trainer": how,
        **family.notes(config, stage),
    }
    save = family.stages[stage].save or _save_tensors
    save(config, result_path(family, config, stage), tensors, notes)


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _save_tensors(config: Any, path: Path, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
    del config
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    texts = {name: json.dumps(note) if isinstance(note, dict) else str(note) for name, note in notes.items()}
    write_safetensors(path, shapes, tensors.__getitem__, texts)


def _fits(path: Path, family: Family[AnyRun], config: AnyRun, stage: str) -> bool:
    with torch.device("meta"):
        network = family.network(config, stage)
    try:
        with open_checkpoint(path) as checkpoint:
            shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        compare({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, shapes, str(path))
    except CheckpointMismatch as error:
        logger.warning("shipped weights are passed over: %s", error)
        return False
    return True
