"""A stage of any family from its config to its result: built, trained, shipped, or only counted (`dry_run`)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing
from inspatio_sim.generators.presets.convert import convert
from inspatio_sim.machine.interrupts import interrupts_held, stop_signals
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.cost import StageCost
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import AnyRun, Family
from inspatio_sim.training.engine.metrics import StepCallback
from inspatio_sim.training.engine.results import (
    find_result,
    found_result,
    plain,
    result_path,
    save_result,
    steps_of,
)
from inspatio_sim.training.engine.trainer import Stage, Trainer, TrainerConfig

logger = logging.getLogger(__name__)


def adapted(family: Family[AnyRun], stage: str, config: AnyRun, ranks: Ranks) -> AnyRun:
    """The config for what there is to work with; a change is said."""
    config, warning = family.adapt(family, stage, config)
    if warning and ranks.is_main:
        logger.warning(warning)
    return config


def needs(family: Family[AnyRun], stage: str, config: AnyRun, start: Path | None) -> list[str]:
    """Earlier stages whose results a stage uses."""
    kind = family.stages[stage]
    unused = {*family.unused(config), *([kind.begins_with] if start else [])}
    return [name for name in kind.needs if name not in unused]


def build(
    family: Family[AnyRun],
    stage: str,
    config: AnyRun,
    ranks: Ranks,
    *,
    start: Path | None = None,
    progress: Progress | None = None,
) -> Stage:
    """A stage that is ready to be trained; its data are prepared.

    Args:
        family: that it is one of.
        stage: its name.
        config: of the run, for this stage.
        ranks: this process among its peers.
        start: weights to begin with in place of the usual ones.
        progress: told the share of the data.

    Raises:
        InputError: an earlier result is missing.
    """
    for earlier in needs(family, stage, config, start):  # before anything that takes long
        found = found_result(family, config, earlier)
        if found.kind != "run" and ranks.is_main:
            logger.warning("%s was not run in %s: in its place %s", earlier, config.folder, found.shown)
    inputs = family.inputs(family=family, config=config, ranks=ranks, start=start, progress=progress)
    return family.stages[stage].build(inputs)


def train(
    family: Family[AnyRun], stage: str, config: AnyRun, ranks: Ranks, built: Stage, show: StepCallback
) -> dict[str, Any]:
    """Train one stage up to its own result.

    Args:
        family: that it is one of.
        stage: its name.
        config: of the run, for this stage.
        ranks: this process among its peers.
        built: what `build` made of the same.
        show: told every step.

    Returns:
        The report.

    Raises:
        KeyboardInterrupt: asked to stop; a checkpoint was written.
    """
    trainer = Trainer(built, config.trainer, ranks, plain(config))
    begun = trainer.steps_done
    metrics: dict[str, float] = {}
    with interrupts_held(stop_signals(), is_patient=False) as check:

        def on_step(steps_done: int, max_steps: int, newest: Mapping[str, float]) -> None:
            show(steps_done, max_steps, newest)
            metrics.update(newest)
            is_kept = steps_done > begun and steps_done % config.trainer.checkpoint_every == 0
            if is_kept or steps_done == max_steps:
                save_result(family, config, stage, trainer)
            check()

        try:
            trainer.run(on_step)
        except KeyboardInterrupt as interrupt:
            kept = f"{config.trainer.out} holds step {trainer.steps_done}; --resume goes on from there"
            raise KeyboardInterrupt(kept) from interrupt
    return {
        "command": "train",
        "stage": family.stages[stage].key,
        "config": config.name,
        "steps": trainer.steps_done,
        "result": str(result_path(family, config, stage)),
        "metrics": metrics,
        **_throughput(config.trainer, family.cost(stage, config), metrics, ranks),
    }


def dry_run(
    family: Family[AnyRun], stage: str, config: AnyRun, ranks: Ranks, *, start: Path | None = None
) -> dict[str, Any]:
    """What training a stage would take: parameters, memory, operations, samples, and what it would begin from."""
    cost, trainer = family.cost(stage, config), config.trainer
    earlier = {name: find_result(family, config, name) for name in needs(family, stage, config, start)}
    samples = trainer.batch_size * trainer.accumulate * ranks.world_size
    flop = cost.flop_per_sample * samples if cost else None
    networks = cost.networks if cost else ()
    return {
        "command": "train",
        "stage": family.stages[stage].key,
        "config": config.name,
        "ranks": ranks.world_size,
        "networks": [{**dataclasses.asdict(network), **network.memory_bytes} for network in networks],
        "activation_bytes": cost.activation_bytes if cost else None,
        "flop_per_step": flop,
        "flop_per_run": flop * trainer.max_steps if flop else None,
        "samples_per_step": samples,
        "steps": trainer.max_steps,
        "begins_with": str(start) if start else None,
        "earlier": {name: found.shown if found else None for name, found in earlier.items()},
        "result": str(result_path(family, config, stage)),
    }


def ship(family: Family[AnyRun], config: AnyRun, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Copy a run's results to where the package looks for its weights; the first appears when all are written.

    Args:
        family: of the run.
        config: of the run.
        folder: files of the same names in it are replaced; others stay.
        progress: told the share of each file.

    Returns:
        The report.

    Raises:
        InputError: a stage was not run, or the folder cannot be written.
    """
    ships = family.ships(config)
    results = {what: result_path(family, config, shipped.stage) for what, shipped in ships.items()}
    files = {what: folder / shipped.file_name for what, shipped in ships.items()}
    for what, path in results.items():
        if not path.is_file():
            key = family.stages[ships[what].stage].key
            raise InputError(f"{path}: no such file: run {family.command(key, config)} first")
    with ExitStack() as renamed_at_the_end:
        for what, path in results.items():
            written = renamed_at_the_end.enter_context(replacing(files[what]))
            convert(path, None, written, dtype=ships[what].dtype, progress=progress)
    return {
        "command": "train",
        "stage": "ship",
        "config": config.name,
        "files": {what: str(path) for what, path in files.items()},
        "steps": {what: steps_of(path) for what, path in files.items()},
        "num_bytes": {what: path.stat().st_size for what, path in files.items()},
    }


def _throughput(
    trainer: TrainerConfig, cost: StageCost | None, metrics: Mapping[str, float], ranks: Ranks
) -> dict[str, float]:
    """Of the steps in the last row of the metrics."""
    seconds = metrics.get("step_s")
    if not seconds or cost is None:
        return {}
    samples = trainer.batch_size * trainer.accumulate * ranks.world_size
    return {"samples_per_s": samples / seconds, "flop_per_s": samples * cost.flop_per_sample / seconds}
