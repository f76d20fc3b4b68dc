"""The learning examples run as the README says, leave what they promise, and say what is wrong on one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspatio_envs.episodes import load_episodes

from inspatio_sim.clips.video import read_clip

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
CHECKPOINTS = {"cleanrl_ppo.py": "policy.safetensors", "train_ppo.py": "policy.zip"}
SMALL = ["--num-envs", "2", "--train-episodes", "40", "--eval-episodes", "1", "--size", "32", "48"]


@pytest.fixture(params=CHECKPOINTS)
def example(request):
    if request.param == "train_ppo.py":
        pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    return request.param


def run(example, *arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / example), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_it_learns_goes_on_and_is_judged_elsewhere(example, tmp_path):
    out, checkpoint = tmp_path / "out", CHECKPOINTS[example]
    first = run(example, "--steps", 512, "--out", out, *SMALL)
    assert first.returncode == 0, first.stderr
    assert {path.name for path in out.iterdir()} == {
        checkpoint,
        "evaluation.json",
        "paths.png",
        "episode.mp4",
        "train_episodes.json",
        "held_out_episodes.json",
        "tensorboard",
    }
    train, held_out = (load_episodes(out / f"{name}_episodes.json") for name in ("train", "held_out"))
    assert not {each.episode_id for each in train} & {each.episode_id for each in held_out}
    report = json.loads((out / "evaluation.json").read_text())
    assert report["steps"] == 512
    assert report["policy"]["num_episodes"] == report["random"]["num_episodes"] == len(held_out) == 1
    assert len(read_clip(out / "episode.mp4").frames_u8) >= 2
    assert {"train/policy_loss", "train/policy_gradient_loss"} & set(curves_of(out / "tensorboard"))

    resumed = run(example, "--steps", 768, "--out", out, "--resume", *SMALL)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((out / "evaluation.json").read_text())["steps"] == 768

    again = run(example, "--steps", 768, "--out", out, *SMALL)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert f"{checkpoint} is there already: want --resume" in again.stderr

    judged = run(example, "--evaluate-only", out / checkpoint, "--out", tmp_path / "judged", *SMALL)
    assert judged.returncode == 0, judged.stderr
    assert "random: success" in judged.stdout
    assert not (tmp_path / "judged" / checkpoint).exists()


def curves_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--minutes", "0"], "--minutes 0: want more than 0"), (["--evaluate-only", __file__], "want a policy.")],
)
def test_a_mistake_is_one_line(example, arguments, said, tmp_path):
    answer = run(example, *arguments, "--out", tmp_path / "out")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"{example}: error: ")
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
