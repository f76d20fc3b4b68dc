"""`inspatio-sim train`: the stages of `training.stages`, with progress bars and tables."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from inspatio_sim.cli.options import Train
from inspatio_sim.cli.tables import two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.training.engine.distributed import Ranks, joined
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.metrics import StepCallback
from inspatio_sim.training.engine.results import result_path, steps_of
from inspatio_sim.training.engine.run import adapted, build, dry_run, ship, train
from inspatio_sim.training.stages import SHIP, work_called
from inspatio_sim.training.star.build import prepare_clips

GB = 1e9


def run(options: Train, terminal: Terminal) -> int:
    """Train a stage, prepare its data, ship the results, or print what a run needs; returns the exit code."""
    work = work_called(options.stage)
    family, stage = work.family, work.stage
    _check(options, is_trained=work.is_trained, is_ship=stage == SHIP)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    settings = list(itertools.chain.from_iterable(options.set))
    config = run_config(family, options.config, stage, settings=settings, out=options.out, resume=options.resume)
    if not work.is_trained:
        with terminal.progress() as progress:
            if stage == SHIP:
                report = ship(family, config, options.to or find.SHIPPED / config.name, progress=progress)
            else:
                report = prepare_clips(config, progress)
        terminal.result(report, _files_table(report))
        return 0
    is_main = os.environ.get("RANK", "0") == "0"
    if options.dry_run:
        ranks = Ranks(rank=0 if is_main else 1, world_size=int(os.environ.get("WORLD_SIZE", "1")))
        config = adapted(family, stage, config, ranks)
        report = dry_run(family, stage, config, ranks, start=options.start)
        if is_main:
            terminal.result(report, *_dry_run_tables(report))
        return 0
    path = result_path(family, config, stage)
    steps = steps_of(path) if options.resume else 0
    if steps >= config.trainer.max_steps:
        report = {"command": "train", "stage": options.stage, "config": config.name, "steps": steps}
        line = f"{config.name} {options.stage}: finished before, after {steps:,} steps: {path}"
        if is_main:
            terminal.result({**report, "result": str(path), "metrics": {}}, line)
        return 0
    with joined(_device(options.device)) as ranks:
        speaker = terminal if ranks.is_main else Terminal(quiet=True)
        config = adapted(family, stage, config, ranks)
        with speaker.progress() as progress:
            built = build(family, stage, config, ranks, start=options.start, progress=progress)
        with training_progress(speaker, f"{config.name} {options.stage}") as show:
            report = train(family, stage, config, ranks, built, show)
        if ranks.is_main:
            terminal.result(report, _result_table(report))
    return 0


def _check(options: Train, *, is_trained: bool, is_ship: bool) -> None:
    """Raise InputError for options that contradict each other."""
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads {options.threads}: want at least 1")
    if options.start and not options.start.is_file():
        raise InputError(f"--from {options.start}: no such file")
    if options.dry_run and not is_trained:
        raise InputError(f"train {options.stage} --dry-run: want a stage that trains")
    if options.to and not is_ship:
        raise InputError(f"train {options.stage} --to: want train star/ship or frame/ship, or --out for the run")


@contextmanager
def training_progress(terminal: Terminal, what: str) -> Iterator[StepCallback]:
    """A bar with the steps, the time left and the newest numbers; none when quiet or if stderr is not a terminal."""
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
    )
    is_hidden = terminal.is_quiet or not terminal.err.is_terminal
    with Progress(*columns, console=terminal.err, disable=is_hidden, speed_estimate_period=300) as bars:
        task: Any = None

        def report(steps_done: int, max_steps: int, newest: Mapping[str, float]) -> None:
            nonlocal task
            if task is None:  # a resumed run starts its bar at its current step
                task = bars.add_task(what, total=max_steps, completed=steps_done, numbers="")
            shown = [f"{name} {value:.3g}" for name, value in newest.items() if "loss" in name]
            bars.update(task, completed=steps_done, numbers=" ".join(shown[:2]))

        yield report


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _result_table(report: dict[str, Any]) -> Table:
    rows = {"result": report["result"], "steps": f"{report['steps']:,}"}
    if "samples_per_s" in report:
        rows["speed"] = f"{report['samples_per_s']:.3g} samples/s, {report['flop_per_s'] / 1e9:.3g} GFLOP/s"
    rows |= {name: f"{value:.4g}" for name, value in report["metrics"].items()}
    return two_columns(f"{report['config']} {report['stage']}", rows)


def _files_table(report: dict[str, Any]) -> Table:
    """The shipped files, or the folders of encoded clips."""
    if "folders" in report:
        return two_columns(f"{report['config']}: latents of {report['num_clips']} clips", report["folders"])
    rows = {
        what: f"{path}, {report['num_bytes'][what] / 1e6:.1f} MB, after {report['steps'][what]:,} steps"
        for what, path in report["files"].items()
    }
    return two_columns(f"{report['config']}, shipped", rows)


def _dry_run_tables(report: dict[str, Any]) -> list[Table | str]:
    networks = Table(title="Networks", title_justify="left", box=None, padding=(0, 2, 0, 0))
    parts = ("weights", "gradients", "optimiser", "averages")
    networks.add_column("", no_wrap=True)
    for name in ("millions", *parts):
        networks.add_column(name, justify="right")
    for network in report["networks"]:
        kind = "trained" if network["is_trained"] else "frozen"
        sizes = [f"{network[part] / GB:.3f} GB" if network[part] else "" for part in parts]
        networks.add_row(f"{network['name']}, {kind}", f"{network['num_parameters'] / 1e6:,.3f}", *sizes)
    rows = {
        "samples": f"{report['samples_per_step']} a step, {report['steps']:,} steps, {report['ranks']} processes",
    }
    if report["networks"]:
        kept = sum(network[part] for network in report["networks"] for part in parts)
        shared = ", shared by the processes but for frozen networks" if report["ranks"] > 1 else ""
        rows["memory"] = (
            f"{kept / GB:.2f} GB{shared}, and roughly {report['activation_bytes'] / GB:.2f} GB of activations each"
        )
        rows["operations"] = (
            f"{report['flop_per_step'] / 1e12:.4g} TFLOP a step, {report['flop_per_run'] / 1e15:.4g} PFLOP in all"
        )
    if report["begins_with"]:
        rows["begins with"] = report["begins_with"]
    rows |= {f"from {stage}": found or "missing: run it first" for stage, found in report["earlier"].items()}
    rows["result"] = report["result"]
    return [networks, two_columns(f"{report['config']} {report['stage']}, not run", rows)]
