import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.checkpoint import latest_checkpoint, load_numbers, load_tensors
from inspatio_sim.training.engine.distributed import Ranks, joined
from inspatio_sim.training.engine.metrics import read_metrics
from tests.training.engine.test_trainer import checkpoint


def toy(out: Path, num_ranks: int, *settings: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
    command = command if num_ranks > 1 else [sys.executable]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, "-m", "tests.training.toy", f"out={out}", "clip_norm=0.05", *settings],
        env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def assert_close(left: Path, right: Path) -> None:
    others = checkpoint(right)
    for stem, tensors in checkpoint(left).items():
        assert tensors.keys() == others[stem].keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(others[stem][name], tensor, rtol=1e-5, atol=1e-6, msg=f"{stem} {name}")
    rows, other_rows = read_metrics(left / "metrics.csv"), read_metrics(right / "metrics.csv")
    assert len(rows) == len(other_rows)
    for row, other in zip(rows, other_rows, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"step_s"}:
            assert other[name] == (None if row[name] is None else pytest.approx(row[name], rel=1e-4))


@pytest.mark.slow
def test_two_ranks_are_one_and_either_goes_on(tmp_path: Path) -> None:
    """Two ranks of 2 samples against one of 4: after 2 steps, and each going on to 4 with the other's number of ranks.

    Both networks, averages, optimisers, metrics; one network is entered through two methods.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    toy(one, 1, "max_steps=2", "batch_size=4", "final_lr=1")
    toy(two, 2, "max_steps=2", "batch_size=2", "final_lr=1")
    assert_close(one, two)
    path = latest_checkpoint(two / "checkpoints")
    assert path is not None
    assert len(load_numbers(path)["ranks"]) == 2
    assert load_tensors(path, "adam.optimiser")["student.out_layer.weight/exp_avg_sq"].shape == (4, 8)
    toy(one, 2, "max_steps=4", "batch_size=2", "final_lr=1", "resume=true")
    toy(two, 1, "max_steps=4", "batch_size=4", "final_lr=1", "resume=true")
    assert_close(one, two)


def test_a_single_process_needs_no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as ranks:
        assert ranks == Ranks()
        assert ranks.is_main
        assert ranks.mean({"loss": 2.5}) == {"loss": 2.5}
        assert ranks.any(True)
        assert ranks.gather("own") == ["own"]
        ranks.wait()


def test_unusable_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "63")
    with pytest.raises(InputError, match="process 63 of this machine needs a GPU of its own"), joined("cuda"):
        pass
    with pytest.raises(InputError, match="device='tpu': want cpu or cuda"), joined("tpu"):
        pass


@pytest.mark.slow
def test_gradients_of_the_sharded_student(tmp_path: Path) -> None:
    """The real transformer, chunk by chunk, a clip a rank: the mean gradient of both clips on one rank."""
    command = [sys.executable, "-m", "tests.training.sharded_star"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for arguments, name in ((command[1:], "one"), (launcher, "two")):
        run = subprocess.run(
            [sys.executable, *arguments, str(tmp_path / name)],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) > 60
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
