"""From a run's results to the weights that the package carries: transformers in bfloat16, the others as they are."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing
from inspatio_sim.generators.presets.convert import convert
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.earlier import result_path
from inspatio_sim.training.engine.run import SHIP, steps_of
from inspatio_sim.training.star.configs import Run, RunConfig

SHIPPED_DTYPES = {"codec": None, "depth": None, "teacher": torch.bfloat16, "student": torch.bfloat16}
"""None: as trained. The student also stands in for what `init` leaves; the text-to-video teacher stays."""


def ship(config: RunConfig, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Copy a run's results; the first appears when all are written.

    Args:
        config: of the run.
        folder: files of the same names in it are replaced; others stay.
        progress: told the share of each file.

    Returns:
        The report.

    Raises:
        InputError: a stage was not run, or the folder cannot be written.
    """
    stages = {what: config.student if what == "student" else what for what in SHIPPED_DTYPES}
    results = {what: result_path(config, stage) for what, stage in stages.items()}
    files = {what: folder / path.name for what, path in results.items()}
    files["student"] = folder / result_path(config, "distill").name
    for what, path in results.items():
        check_was_run(path, stages[what], config)
    with ExitStack() as renamed_at_the_end:
        for what, path in results.items():
            written = renamed_at_the_end.enter_context(replacing(files[what]))
            convert(path, None, written, dtype=SHIPPED_DTYPES[what], progress=progress)
    return {
        "command": "train",
        "stage": SHIP,
        "config": config.name,
        "files": {what: str(path) for what, path in files.items()},
        "steps": {what: steps_of(path) for what, path in files.items()},
        "num_bytes": {what: path.stat().st_size for what, path in files.items()},
    }


def check_was_run(path: Path, stage: str, config: Run) -> None:
    """Refuse to ship a result that is not there; `stage` as it is typed."""
    if not path.is_file():
        want = f"run inspatio-sim train {stage} --config {config.name} --out {config.folder} first"
        raise InputError(f"{path}: no such file: {want}")
