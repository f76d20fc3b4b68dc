"""One stage of a run from its config to its result: `train`, and `dry_run`, which only says what that would take."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.identify import STAR_NOTE, config_note
from inspatio_sim.geometry.depth_network import save_depth_network
from inspatio_sim.machine.interrupts import interrupts_held, stop_signals
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.cost import StageCost, stage_cost
from inspatio_sim.training.engine.distributed import Ranks, gathered
from inspatio_sim.training.engine.earlier import Earlier, find_earlier, found_earlier, result_path
from inspatio_sim.training.engine.metrics import training_progress
from inspatio_sim.training.engine.trainer import Stage, Trainer, TrainerConfig
from inspatio_sim.training.star.build import STAGES, Workshop, build_stage, joint_if_possible, needs
from inspatio_sim.training.star.configs import Run, RunConfig
from inspatio_sim.training.star.prepare import STYLES, latents_folder
from inspatio_sim.training.star.prepare import prepare as prepare_style

logger = logging.getLogger(__name__)

PREPARE, SHIP, FRAME = "prepare", "ship", "frame"  # no stages, but asked for like some
NO_T2V_TEACHER = "no text-to-video teacher: clips along paths alone are distilled, as with t2v_weight=0; for both tasks"


def check_stage(stage: str) -> None:
    """Refuse what is no stage."""
    if stage not in (*STAGES, PREPARE, SHIP):
        raise InputError(f"train {stage[:40]}: want one of {', '.join((*STAGES, PREPARE, FRAME, SHIP))}")


def prepare(config: RunConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Encode all the clips of a run."""
    found_earlier(config, "codec")
    workshop = Workshop(config=config, ranks=Ranks(), progress=progress)
    num_clips = config.data.num_clips
    for style in STYLES:
        prepare_style(config, style, workshop.codec, num_clips=num_clips, progress=progress)
    folders = {style: str(latents_folder(config, style)) for style in STYLES}
    return {"command": "train", "stage": PREPARE, "config": config.name, "num_clips": num_clips, "folders": folders}


def steps_of(path: Path) -> int:
    """How many steps made a result; 0 if it is not there, or does not say."""
    if not path.is_file():
        return 0
    with open_checkpoint(path) as checkpoint:
        notes = checkpoint.metadata
    return int({**notes, **json.loads(notes.get("notes", "{}"))}.get("steps", 0))  # a depth network's are in "notes"


def train(
    stage: str, config: RunConfig, ranks: Ranks, terminal: Terminal, *, start: Path | None = None
) -> dict[str, Any]:
    """Train one stage, from what earlier ones left to its own result.

    Args:
        stage: a key of `STAGES`.
        config: of the run, for this stage.
        ranks: this process among its peers.
        terminal: for progress.
        start: weights to begin with in place of the usual ones.

    Returns:
        The report.

    Raises:
        KeyboardInterrupt: asked to stop; a checkpoint was written.
    """
    config = _distillable(stage, config, ranks)
    with terminal.progress() as progress:
        built = build_stage(stage, Workshop(config=config, ranks=ranks, start=start, progress=progress))
    path = result_path(config, stage)
    cost = stage_cost(stage, config)
    return train_built(
        stage, built, config, ranks, terminal, path=path, cost=cost,
        write=lambda trainer: write_result(path, trainer, stage, config),
    )  # fmt: skip


def train_built(
    stage: str,
    built: Stage,
    config: Run,
    ranks: Ranks,
    terminal: Terminal,
    *,
    path: Path,
    cost: StageCost | None,
    write: Callable[[Trainer], None],
) -> dict[str, Any]:
    """Train a stage of any run; see `train`.

    Args:
        stage: its name.
        built: ready to be trained.
        config: of the run; a dataclass.
        ranks: this process among its peers.
        terminal: for progress.
        path: of the result.
        cost: of the stage, for the throughput.
        write: writes the result; every rank has to ask.
    """
    trainer = Trainer(built, config.trainer, ranks, plain(config))
    begun = trainer.steps_done
    metrics: dict[str, float] = {}

    with (
        interrupts_held(stop_signals(), is_patient=False) as check,
        training_progress(terminal, f"{config.name} {stage}") as show,
    ):

        def on_step(steps_done: int, max_steps: int, newest: Mapping[str, float]) -> None:
            show(steps_done, max_steps, newest)
            metrics.update(newest)
            is_kept = steps_done > begun and steps_done % config.trainer.checkpoint_every == 0
            if is_kept or steps_done == max_steps:
                write(trainer)
            check()

        try:
            trainer.run(on_step)
        except KeyboardInterrupt as interrupt:
            kept = f"{config.trainer.out} holds step {trainer.steps_done}; --resume goes on from there"
            raise KeyboardInterrupt(kept) from interrupt
    return {
        "command": "train",
        "stage": stage,
        "config": config.name,
        "steps": trainer.steps_done,
        "result": str(path),
        "metrics": metrics,
        **_throughput(config.trainer, cost, metrics, ranks),
    }


def dry_run(stage: str, config: RunConfig, ranks: Ranks, *, start: Path | None = None) -> dict[str, Any]:
    """What training a stage would take: parameters, memory, operations, samples, and what it would begin from."""
    config = _distillable(stage, config, ranks)
    earlier = {name: find_earlier(config, name) for name in needs(stage, config, start)}
    return dry_report(
        stage, config, ranks, start=start, cost=stage_cost(stage, config), earlier=earlier,
        path=result_path(config, stage),
    )  # fmt: skip


def dry_report(
    stage: str,
    config: Run,
    ranks: Ranks,
    *,
    start: Path | None,
    cost: StageCost | None,
    earlier: Mapping[str, Earlier | None],
    path: Path,
) -> dict[str, Any]:
    """What training a stage of any run would take; see `dry_run`."""
    trainer = config.trainer
    samples = trainer.batch_size * trainer.accumulate * ranks.world_size
    flop = cost.flop_per_sample * samples if cost else None
    return {
        "command": "train",
        "stage": stage,
        "config": config.name,
        "ranks": ranks.world_size,
        "networks": [{**dataclasses.asdict(network), **network.memory_bytes} for network in cost.networks]
        if cost
        else [],
        "activation_bytes": cost.activation_bytes if cost else None,
        "flop_per_step": flop,
        "flop_per_run": flop * trainer.max_steps if flop else None,
        "samples_per_step": samples,
        "steps": trainer.max_steps,
        "begins_with": str(start) if start else None,
        "earlier": {name: found.shown if found else None for name, found in earlier.items()},
        "result": str(path),
    }


def write_result(path: Path, trainer: Trainer, stage: str, config: RunConfig) -> None:
    """The averaged weights of what a stage is about, with notes on their origin; every rank has to ask."""
    tensors = averages(trainer)
    if not trainer.ranks.is_main:
        return
    origin, how = notes_of(trainer, stage, config)
    if stage == "depth":
        training = plain(config.depth)
        notes = {**origin, "seed": config.depth.seed, "training": training, "trainer": how}
        save_depth_network(path, config.depth.network, tensors, notes)
        return
    notes = {name: str(value) for name, value in {**origin, "seed": config.seed}.items()}
    notes |= {"trainer": json.dumps(how), "codec": json.dumps(plain(config.codec))}
    if stage != "codec":
        notes[STAR_NOTE] = config_note(config.star)
    write_tensors(path, tensors, notes)


def averages(trainer: Trainer) -> dict[str, Tensor]:
    """The averaged weights of what a stage is about; every rank has to ask."""
    (average,) = trainer.averages.values()
    return {name: gathered(tensor, trainer.ranks) for name, tensor in average.tensors.items()}


def notes_of(trainer: Trainer, stage: str, config: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a result: its origin, and how it was trained."""
    origin = {"config": config.name, "stage": stage, "steps": trainer.steps_done, "weights": "moving average"}
    how = plain(config.trainer)
    del how["out"], how["resume"]  # the same weights, wherever they were trained and however often that was broken off
    return origin, how


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """A result on the disk."""
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_safetensors(path, shapes, tensors.__getitem__, notes)


def _distillable(stage: str, config: RunConfig, ranks: Ranks) -> RunConfig:
    """The config, for a distillation without the task that lacks a teacher, which is said."""
    if stage != "distill":
        return config
    possible = joint_if_possible(config)
    if possible is not config and ranks.is_main:
        run = f"inspatio-sim train t2v-teacher --config {config.name} --out {config.folder}"
        logger.warning("%s run %s first", NO_T2V_TEACHER, run)
    return possible


def _throughput(
    trainer: TrainerConfig, cost: StageCost | None, metrics: Mapping[str, float], ranks: Ranks
) -> dict[str, float]:
    """Of the steps in the last row of the metrics."""
    seconds = metrics.get("step_s")
    if not seconds or cost is None:
        return {}
    samples = trainer.batch_size * trainer.accumulate * ranks.world_size
    return {"samples_per_s": samples / seconds, "flop_per_s": samples * cost.flop_per_sample / seconds}


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
