"""A family of models as the engine sees it: the configs of its runs, its stages, the files they leave and ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.cost import StageCost
from inspatio_sim.training.engine.settings import apply_settings
from inspatio_sim.training.engine.trainer import Stage, TrainerConfig


class Run(Protocol):
    """What the configs of all families have."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def trainer(self) -> TrainerConfig: ...

    @property
    def seed(self) -> int: ...

    @property
    def checkpoint_activations(self) -> bool: ...

    @property
    def compile(self) -> bool: ...

    @property
    def random_stand_ins(self) -> bool: ...


AnyRun = TypeVar("AnyRun", bound=Run)
Save = Callable[[Any, Path, Mapping[str, Tensor], dict[str, Any]], None]
"""Writes a result: `save(config, path, tensors, notes)`."""


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """One stage of a family."""

    key: str  # as typed, such as star/init
    build: Callable[[Any], Stage]  # from the family's inputs
    needs: tuple[str, ...] = ()  # earlier stages
    begins_with: str | None = None  # that of them which `--from FILE` stands in for
    save: Save | None = None  # None: tensors as they are


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published weights that stand in for a stage."""

    path: Path | None  # None: not found
    missing: str  # what to have in that case


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """One file of the package, and the stage that it is the result of."""

    stage: str
    file_name: str
    dtype: torch.dtype | None = None  # None: as trained


@dataclass(frozen=True, kw_only=True)
class Family(Generic[AnyRun]):
    """What the engine asks a family. Stages go by the names of their folders in a run, such as "init"."""

    configs: Mapping[str, Callable[[str], AnyRun]]  # by name: from a stage to its config
    stages: Mapping[str, StageKind]
    inputs: Callable[..., Any]  # a `StageInputs` of this family
    network: Callable[[AnyRun, str], nn.Module]  # whose weights a stage leaves
    cost: Callable[[str, AnyRun], StageCost | None]
    notes: Callable[[AnyRun, str], Mapping[str, Any]]  # in the header of a result, beside its origin
    result_name: Callable[[AnyRun, str], str]  # of a stage's file, without suffix
    stand_ins: Callable[[AnyRun, str], Sequence[str]]  # shipped files that may serve as a stage's result
    ships: Callable[[AnyRun], Mapping[str, Shipped]]
    published: Callable[[AnyRun, str], Published | None] = lambda config, stage: None
    adapt: Callable[[Family[AnyRun], str, AnyRun], tuple[AnyRun, str]] = lambda family, stage, config: (config, "")
    """The config of a stage for what there is to work with, and a warning if that changes it."""
    unused: Callable[[AnyRun], Sequence[str]] = lambda config: ()  # earlier stages that a config does without

    def command(self, stage_key: str, config: AnyRun) -> str:
        """What to type for a stage of the same run."""
        names = [name for name, make in self.configs.items() if make("").name == config.name]
        return f"inspatio-sim train {stage_key} --config {(names or [config.name])[0]} --out {config.folder}"


def run_config(
    family: Family[AnyRun],
    name: str,
    stage: str,
    *,
    settings: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
) -> AnyRun:
    """The config of one stage of a run, with the changes of the command line.

    Args:
        family: whose config.
        name: of the config.
        stage: such as "teacher".
        settings: see `apply_settings`.
        out: folder of the run in place of its own.
        resume: go on from the newest checkpoint.
    """
    if name not in family.configs:
        raise InputError(f"--config {name[:40]}: want one of {', '.join(family.configs)}")
    config = family.configs[name](stage)
    folder = out or config.folder
    trainer = replace(config.trainer, out=folder / stage, resume=resume)
    placed: AnyRun = replace(cast("Any", config), folder=folder, trainer=trainer)
    changed = apply_settings(placed, settings)
    if (changed.folder, changed.trainer.out, changed.trainer.resume) != (folder, folder / stage, resume):
        raise InputError("--set of folder, trainer.out or trainer.resume: want --out FOLDER and --resume")
    return changed
