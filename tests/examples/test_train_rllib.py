"""The RLlib example on a cluster of two env runners, which it starts itself."""

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray.rllib.algorithms.ppo", reason="package ray is missing: pip install 'inspatio-sim[rllib]'")

from inspatio_sim.training.engine.metrics import read_metrics

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """The example as a person starts it, with Ray's own files in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path: Ray's sockets are in it
        # Ray would give way to whatever else runs on the machine.
        env = os.environ | {"RAY_TMPDIR": folder, "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1", "HOME": folder}
        command = [sys.executable, "examples/train_rllib.py", *options]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_runners_train_together_and_a_run_goes_on(tmp_path: Path) -> None:
    size = "--envs-per-env-runner", "2", "--steps-per-iteration", "64"
    done = run("--iterations", "1", "--num-env-runners", "2", *size, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "iteration 1 of 1" in done.stdout
    (row,) = read_metrics(tmp_path / "metrics.csv")
    steps = [row["steps_of_runner_1"], row["steps_of_runner_2"]]
    assert all(num_steps in (32, 33) for num_steps in steps)  # two worlds at a time, whole steps of both
    assert row["step"] == sum(num_steps or 0 for num_steps in steps)
    assert row["entropy"] == pytest.approx(math.log(9), abs=0.1)  # no action is preferred yet
    assert (tmp_path / "checkpoint" / "rllib_checkpoint.json").is_file()

    done = run("--iterations", "2", "--num-env-runners", "1", *size, "--out", str(tmp_path), "--resume")
    assert done.returncode == 0, done.stderr
    first, second = read_metrics(tmp_path / "metrics.csv")
    assert first == row
    assert (second["iteration"], second["steps_of_runner_2"]) == (2, None)
    assert second["step"] == (first["step"] or 0) + (second["steps_of_runner_1"] or 0)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--generator", "wrap"], "generator='wrap': want one of"),
        (["--video", "missing.mp4"], "missing.mp4"),
        (["--num-env-runners", "0"], "--num-env-runners 0: want 1 or more"),
        (["--resume", "--out", "missing"], "--resume: there is no"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    from examples import train_rllib

    assert train_rllib.main(options) == 2
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1
