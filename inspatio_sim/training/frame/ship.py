"""From a frame run's result to the weights that the package carries, in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inspatio_sim.generators.presets.convert import convert
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.run import SHIP, steps_of
from inspatio_sim.training.engine.ship import check_was_run
from inspatio_sim.training.frame.configs import FrameRunConfig
from inspatio_sim.training.frame.earlier import result_path, shipped_name


def ship_frame(config: FrameRunConfig, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Copy the run's student; its codec is that of the video model.

    Args:
        config: of the run.
        folder: a file of the same name in it is replaced; others stay.
        progress: told the share.

    Returns:
        The report.

    Raises:
        InputError: the stage was not run, or the folder cannot be written.
    """
    result, path = result_path(config, config.student), folder / shipped_name(config)
    check_was_run(result, f"frame --stage {config.student}", config)
    convert(result, None, path, dtype=torch.bfloat16, progress=progress)
    return {
        "command": "train",
        "stage": SHIP,
        "config": config.name,
        "files": {"student": str(path)},
        "steps": {"student": steps_of(path)},
        "num_bytes": {"student": path.stat().st_size},
    }
