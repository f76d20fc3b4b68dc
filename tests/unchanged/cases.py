"""The table of cases: what each does, and what is left out of it because no two runs have it alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.unchanged import command_cases, env_cases, ros_cases, training_cases, world_cases

TIMES = {"*/timings_s": "wall times", "*/seconds": "wall time"}
REPORTS = {**TIMES, "*/versions": "of packages: `check` says if they differ"}
TRAINING = {
    "*/step_s": "wall time",
    "*/samples_per_s": "wall time",
    "*/flop_per_s": "wall time",
    "*/random/numpy": "nothing in training draws from it, so nothing seeds it",
    "*/random/python": "as numpy's",
    "*/tensorboard/*": "dates within; the numbers are those of metrics.csv",
}


def always() -> str | None:
    return None


def without_test_data() -> str | None:
    return None if os.environ.get("INSPATIO_TEST_DATA") else "INSPATIO_TEST_DATA is not set"


def without_bags() -> str | None:
    return None if find_spec("rosbags") else "rosbags is not installed"


def without_ros() -> str | None:
    return None if find_spec("rclpy") else "rclpy is not installed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    run: Callable[[Path], dict[str, Any]]
    """Called in an empty folder (the working folder too) but for `inputs`; returns values by name, see `values`."""
    excluded: Mapping[str, str] = field(default_factory=dict)  # pattern of NAME/KEY/KEY -> why it is left out
    skipped: Callable[[], str | None] = always  # why it cannot be run here


CASES: dict[str, Case] = {
    "train": Case(run=training_cases.train, excluded=TRAINING),
    "train-frame": Case(run=training_cases.train_frame, excluded=TRAINING),
    "demo": Case(run=command_cases.demo, excluded=REPORTS),
    "explore-warp": Case(run=command_cases.explore_warp, excluded=REPORTS),
    "explore-star": Case(run=command_cases.explore_star, excluded=REPORTS),
    "explore-frame": Case(run=command_cases.explore_frame, excluded=REPORTS),
    "explore-panorama": Case(run=command_cases.explore_panorama, excluded=REPORTS),
    "reconstruct": Case(run=command_cases.reconstruct, excluded=REPORTS),
    "world-warp": Case(run=world_cases.world_warp),
    "world-star": Case(run=world_cases.world_star),
    "world-frame": Case(run=world_cases.world_frame),
    "old-files": Case(run=world_cases.old_files, excluded=TIMES, skipped=without_bags),
    "env-tasks": Case(run=env_cases.env_tasks),
    "env-actions": Case(run=env_cases.env_actions),
    "env-networks": Case(run=env_cases.env_networks),
    "env-demo-room": Case(run=env_cases.env_demo_room),
    "env-vector": Case(run=env_cases.vector_env),
    "scenarios": Case(run=command_cases.scenarios, excluded=TIMES),
    "bags": Case(run=command_cases.bags, excluded=TIMES, skipped=without_bags),
    "ros": Case(run=ros_cases.ros, excluded={**TIMES, **ros_cases.NOT_HEARD}, skipped=without_ros),
    "parity": Case(
        run=command_cases.parity, excluded={"*/machine": "the machine and its date"}, skipped=without_test_data
    ),
    "costs": Case(run=command_cases.costs),
}
