"""One stage of a frame run from its config to its result; `dry_run` only says what that would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.generators.presets.identify import config_notes
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.run import averages, dry_report, notes_of, plain, train_built, write_tensors
from inspatio_sim.training.engine.trainer import Trainer
from inspatio_sim.training.frame.build import FrameWorkshop, build_frame_stage, frame_needs
from inspatio_sim.training.frame.configs import FrameRunConfig
from inspatio_sim.training.frame.cost import frame_stage_cost
from inspatio_sim.training.frame.earlier import find_earlier, result_path


def train_frame(
    stage: str, config: FrameRunConfig, ranks: Ranks, terminal: Terminal, *, start: Path | None = None
) -> dict[str, Any]:
    """As `training.run.train`, of a key of `FRAME_STAGES`."""
    with terminal.progress() as progress:
        built = build_frame_stage(stage, FrameWorkshop(config=config, ranks=ranks, start=start, progress=progress))
    path = result_path(config, stage)
    return train_built(
        stage, built, config, ranks, terminal, path=path, cost=frame_stage_cost(stage, config),
        write=lambda trainer: write_frame_result(path, trainer, stage, config),
    )  # fmt: skip


def dry_run_frame(stage: str, config: FrameRunConfig, ranks: Ranks, *, start: Path | None = None) -> dict[str, Any]:
    """As `training.run.dry_run`, of a key of `FRAME_STAGES`."""
    return dry_report(
        stage, config, ranks, start=start, cost=frame_stage_cost(stage, config),
        earlier={name: find_earlier(config, name) for name in frame_needs(stage, start)},
        path=result_path(config, stage),
    )  # fmt: skip


def write_frame_result(path: Path, trainer: Trainer, stage: str, config: FrameRunConfig) -> None:
    """The averaged weights, with notes on their origin; every rank has to ask."""
    tensors = averages(trainer)
    if not trainer.ranks.is_main:
        return
    origin, how = notes_of(trainer, stage, config)
    notes = {name: str(value) for name, value in {**origin, "seed": config.seed}.items()}
    data = plain(config.data)
    del data["workers"], data["texture_folder"]  # of this machine
    groups = {"trainer": how, "data": data, "diffusion": plain(config.diffusion)}
    if stage.startswith("distill"):
        groups["distill"] = plain(config.distill)
    notes |= {name: json.dumps(group) for name, group in groups.items()}
    notes |= config_notes(config.frame)
    notes["latent_scale"] = str(config.latent_scale)
    write_tensors(path, tensors, notes)
