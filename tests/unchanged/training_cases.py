"""Cases of training: every stage at its smallest size, each from what the one before left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unchanged import doors
from tests.unchanged.contents import contents

STAGES = ("codec", "depth", "teacher", "t2v-teacher", "init", "distill")
FRAME_STAGES = ("pretrain", "control", "distill", "distill-one")
NUM_STEPS = 20
SETTINGS = ("--set", f"trainer.max_steps={NUM_STEPS}", f"trainer.sample_every={NUM_STEPS}")


def train(folder: Path) -> dict[str, Any]:
    return _trained(folder, {stage: ("train", stage, "--config", "test") for stage in STAGES})


def train_frame(folder: Path) -> dict[str, Any]:
    line = ("train", "frame", "--config", "frame-test", "--stage")
    return _trained(folder, {stage: (*line, stage) for stage in FRAME_STAGES})


def _trained(folder: Path, commands: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Reports, weights, logged losses and sample pictures."""
    values: dict[str, Any] = {}
    for stage, line in commands.items():
        values[f"{stage}/stdout"] = doors.command(*line, "--out", "run", "--threads", "1", *SETTINGS)
        values |= contents(folder / "run" / stage, stage)
    return values
