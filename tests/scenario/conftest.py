"""A small world that the scenarios of these tests share, and a way to write scenarios."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inspatio_sim.scenario.runner import ScenarioResult, run_scenario
from inspatio_sim.scenario.schema import load_scenario
from inspatio_sim.scenario.worlds import WorldMaker

WORLD = "world: {size_px: [48, 80], frames: 6, camera: static, generator: warp"


@pytest.fixture(scope="session")
def maker() -> WorldMaker:
    return WorldMaker()


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write a scenario in the small world; `steps` begin in line 2."""

    def make(steps: str, world: str = "", name: str = "made.scenario.yaml") -> Path:
        path = tmp_path / name
        path.write_text(f"{WORLD}{world}}}\nsteps:\n{steps}\n", encoding="utf-8")
        return path

    return make


@pytest.fixture
def play(write, maker) -> Callable[..., ScenarioResult]:
    """Write a scenario and play it."""
    return lambda steps, world="": run_scenario(load_scenario(write(steps, world)), maker)
