"""What `inspatio-sim train` does; `cli` says what it can be asked."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from rich.table import Table

from inspatio_sim.cli.options import Train
from inspatio_sim.cli.tables import two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.training.engine.distributed import Ranks, joined
from inspatio_sim.training.engine.earlier import result_path
from inspatio_sim.training.engine.run import FRAME, PREPARE, SHIP, check_stage, dry_run, prepare, steps_of, train
from inspatio_sim.training.engine.ship import ship
from inspatio_sim.training.frame.build import FRAME_STAGES, check_frame_stage
from inspatio_sim.training.frame.configs import FRAME_CONFIGS, FrameRunConfig, frame_run_config
from inspatio_sim.training.frame.earlier import result_path as frame_result_path
from inspatio_sim.training.frame.run import dry_run_frame, train_frame
from inspatio_sim.training.frame.ship import ship_frame
from inspatio_sim.training.star.configs import CONFIGS, AnyRun, RunConfig, run_config

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class _Asked(Generic[AnyRun]):
    """What the command line asks for: a stage of the video models, or one of the frame generator."""

    stage: str
    config: AnyRun
    path: Path  # of the result
    train: Callable[..., dict[str, Any]]
    dry_run: Callable[..., dict[str, Any]]
    ship: Callable[..., dict[str, Any]]


def run(options: Train, terminal: Terminal) -> int:
    """Train a stage, prepare its data, ship the results, or say what it would take; returns the exit code."""
    _check(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    asked = _asked_of_frame(options) if _is_of_frame(options) else _asked_of_video(options)
    config, stage = asked.config, asked.stage
    if stage == SHIP:
        with terminal.progress() as progress:
            report = asked.ship(config, options.to or find.SHIPPED / config.name, progress=progress)
        terminal.result(report, _shipped_table(report))
        return 0
    if stage == PREPARE:
        assert isinstance(config, RunConfig), "frames are made as they are needed"
        with terminal.progress() as progress:
            report = prepare(config, progress=progress)
        terminal.result(
            report, two_columns(f"{config.name}: latents of {report['num_clips']} clips", report["folders"])
        )
        return 0
    if options.dry_run:
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        report = asked.dry_run(stage, config, Ranks(world_size=world_size), start=options.start)
        if os.environ.get("RANK", "0") == "0":
            terminal.result(report, *_dry_run_tables(report))
        return 0
    steps = steps_of(asked.path) if options.resume else 0
    if steps >= config.trainer.max_steps:
        report = {"command": "train", "stage": stage, "config": config.name, "steps": steps}
        line = f"{config.name} {stage}: finished before, after {steps:,} steps: {asked.path}"
        if os.environ.get("RANK", "0") == "0":
            terminal.result({**report, "result": str(asked.path), "metrics": {}}, line)
        return 0
    with joined(_device(options.device)) as ranks:
        speaker = terminal if ranks.is_main else Terminal(quiet=True)
        report = asked.train(stage, config, ranks, speaker, start=options.start)
        if ranks.is_main:
            terminal.result(report, _result_table(report))
    return 0


def _check(options: Train) -> None:
    """Refuse options that do not go together."""
    if options.stage != FRAME:
        check_stage(options.stage)
    if options.frame_stage is not None and options.stage != FRAME:
        stage = check_frame_stage(options.frame_stage)
        raise InputError(f"train {options.stage} --stage {stage}: want train {FRAME} --stage {stage}")
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads {options.threads}: want at least 1")
    if options.start and not options.start.is_file():
        raise InputError(f"--from {options.start}: no such file")
    if options.stage in (PREPARE, SHIP) and options.dry_run:
        raise InputError(f"train {options.stage} --dry-run: want a stage that trains")
    if options.to and options.stage != SHIP:
        raise InputError(f"train {options.stage} --to: want train {SHIP}, or --out FOLDER for the run")


def _is_of_frame(options: Train) -> bool:
    return options.stage == FRAME or (options.stage == SHIP and options.config in FRAME_CONFIGS)


def _asked_of_frame(options: Train) -> _Asked[FrameRunConfig]:
    stage = SHIP if options.stage == SHIP else check_frame_stage(options.frame_stage)
    config = frame_run_config(
        options.config, stage, settings=_settings(options), out=options.out, resume=options.resume
    )  # fmt: skip
    path = frame_result_path(config, stage)
    return _Asked(
        stage=stage, config=config, path=path, train=train_frame, dry_run=dry_run_frame, ship=ship_frame
    )  # fmt: skip


def _asked_of_video(options: Train) -> _Asked[RunConfig]:
    if options.config in FRAME_CONFIGS:
        want = f"want train {FRAME} --stage {'|'.join(FRAME_STAGES)}, or one of {', '.join(CONFIGS)}"
        raise InputError(f"train {options.stage} --config {options.config}: {want}")
    config = run_config(
        options.config, options.stage, settings=_settings(options), out=options.out, resume=options.resume
    )
    path = result_path(config, options.stage)
    return _Asked(stage=options.stage, config=config, path=path, train=train, dry_run=dry_run, ship=ship)


def _settings(options: Train) -> list[str]:
    return list(itertools.chain.from_iterable(options.set))


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


def _shipped_table(report: dict[str, Any]) -> Table:
    rows = {
        stage: f"{path}, {report['num_bytes'][stage] / 1e6:.1f} MB, after {report['steps'][stage]:,} steps"
        for stage, path in report["files"].items()
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
