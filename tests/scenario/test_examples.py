"""The examples come true."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspatio_sim.scenario.runner import run_scenario
from inspatio_sim.scenario.schema import load_scenario

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "scenarios").glob("*.scenario.yaml"))


def test_there_are_five():
    scenarios = [load_scenario(path) for path in EXAMPLES]
    assert len(scenarios) == 5
    assert {scenario.world.generator for scenario in scenarios} == {"warp", "star"}
    kinds = {expectation.kind for s in scenarios for step in s.steps for expectation in step.expectations}
    assert kinds == {"pose", "collision", "coverage", "known", "image", "revisit", "occupancy", "latency"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name.split(".")[0])
def test_example(path, maker):
    result = run_scenario(load_scenario(path), maker)
    assert result.status == "passed", "\n".join(result.failures)
