import math
from pathlib import Path

import pytest
import torch

from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.metrics import Metrics, read_metrics


def opened(folder: Path, step: int = 0) -> Metrics:
    metrics = Metrics(folder, Ranks())
    metrics.open(step)
    return metrics


def write(metrics: Metrics, step: int, **values: float) -> None:
    for name, value in values.items():
        metrics.add(name, value)
    metrics.write(step, {"lr": 0.1})


def test_means_and_late_columns(tmp_path: Path) -> None:
    metrics = opened(tmp_path)
    metrics.add("loss", torch.tensor(1.0, requires_grad=True))
    metrics.add("loss", 2.0)
    write(metrics, 2)
    write(metrics, 4, critic=7.0)
    assert metrics.newest == {"critic": 7.0, "lr": 0.1}
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,loss,lr,critic", "2,1.5,0.1,", "4,,0.1,7.0"]
    assert read_metrics(tmp_path / "metrics.csv")[1] == {"step": 4, "loss": None, "lr": 0.1, "critic": 7.0}


def test_floats_come_back_exactly(tmp_path: Path) -> None:
    metrics = opened(tmp_path)
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": -math.inf}
    write(metrics, 1, **values)
    assert read_metrics(tmp_path / "metrics.csv")[0] == {"step": 1, **values, "lr": 0.1}


def test_going_on_drops_later_rows_and_a_torn_one(tmp_path: Path) -> None:
    metrics = opened(tmp_path)
    for step in (2, 4, 6):
        write(metrics, step, loss=float(step))
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("8,0.")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [2, 4, 6]
    again = opened(tmp_path, step=4)
    write(again, 6, loss=9.0)
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path / "metrics.csv")] == [(2, 2), (4, 4), (6, 9)]


def test_pending_numbers_go_on(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add("loss", torch.tensor(0.1))
    second = opened(tmp_path)
    second.load_state(first.state())
    second.add("loss", 0.5)
    second.write(1, {})
    assert second.newest["loss"] == (float(torch.tensor(0.1)) + 0.5) / 2


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, Ranks(rank=1))
    metrics.open(0)
    write(metrics, 1, loss=1.0)
    assert not list(tmp_path.iterdir())


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name, reason="the train extra brings it")
    metrics = opened(tmp_path)
    write(metrics, 2, loss=0.5)
    write(metrics, 4, loss=0.25)
    metrics.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 0.5), (4, 0.25)]
