import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.training.engine.checkpoint import (
    latest_checkpoint,
    load_numbers,
    load_optimiser_state,
    load_tensors,
    optimiser_state,
    random_state,
    remove_unfinished,
    save_checkpoint,
    set_random_state,
)
from inspatio_sim.training.engine.distributed import Ranks

CPU = torch.device("cpu")


def save(folder: Path, step: int, keep: int = 3, value: float = 1.0) -> Path:
    return save_checkpoint(folder, step, {"net": {"w": torch.full((2, 3), value)}}, {"loss": 0.1 + 0.2}, keep=keep)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    tensors = {
        "net": {"w": torch.randn(3, 4).bfloat16(), "n": torch.tensor(7), "empty": torch.zeros(0, 2)},
        "other": {"w": torch.randn(2, dtype=torch.float64)},
    }
    path = save_checkpoint(tmp_path, 12, tensors, {"loss": 0.1 + 0.2}, keep=1)
    assert load_numbers(path) == {"step": 12, "loss": 0.1 + 0.2}
    for stem, named in tensors.items():
        loaded = load_tensors(path, stem, named)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in named.items())
        assert all(loaded[name].dtype == tensor.dtype for name, tensor in named.items())


def test_nothing_is_pickled_and_bytes_repeat(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    files = sorted(path.name for path in first.iterdir())
    assert files == ["net.safetensors", "run.json"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_weights_fit_the_rest_of_the_package(tmp_path: Path) -> None:
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    path = save_checkpoint(tmp_path, 1, {"net": module.state_dict()}, {}, keep=1)
    load_weights(other, path / "net.safetensors")
    assert torch.equal(module.weight, other.weight)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 10, 100, 1000):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000100", "step_00001000"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step_00001000"
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_failed_write_leaves_the_others(tmp_path: Path) -> None:
    good = save(tmp_path, 1, keep=1)
    with pytest.raises(TypeError, match="JSON"):
        save_checkpoint(tmp_path, 2, {"net": {"w": torch.zeros(2)}}, {"bad": object()}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


@pytest.mark.parametrize("file", ["net.safetensors", "run.json"])
def test_damaged_ones_are_passed_over(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    good = save(tmp_path, 1)
    bad = save(tmp_path, 2) / file
    bad.write_bytes(bad.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == good
    assert "step_00000002 is passed over" in caplog.text


def test_leftovers_of_a_kill_go(tmp_path: Path) -> None:
    good = save(tmp_path, 1)
    (tmp_path / ".step_00000002.0a1b2c3d.part").mkdir()
    assert latest_checkpoint(tmp_path) == good
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [good]


def test_other_tensors_than_expected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(CheckpointMismatch, match="1 weights are missing or extra, such as b: another model?"):
        load_tensors(path, "net", {"w": torch.zeros(2, 3), "b": torch.zeros(2)})
    with pytest.raises(CheckpointMismatch, match=r"w is \[2, 3\], want \[3, 2\]"):
        load_tensors(path, "net", {"w": torch.zeros(3, 2)})
    with pytest.raises(InputError, match=r"absent\.safetensors: cannot be read"):
        load_tensors(path, "absent")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.0, 0.9), amsgrad=True),
        lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.2}, {"params": p[1:]}], lr=0.1, momentum=0.9),
    ],
    ids=["adamw", "sgd with groups"],
)
def test_an_optimiser_goes_on(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
    """Through JSON, and in a fresh optimiser: the next update is the same, bit for bit."""

    def fresh() -> tuple[nn.Linear, torch.optim.Optimizer, dict[int, str]]:
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        return module, make(list(module.parameters())), {id(p): f"net.{n}" for n, p in module.named_parameters()}

    def update(module: nn.Linear, optimiser: torch.optim.Optimizer, x: float) -> None:
        optimiser.zero_grad()
        module(torch.full((1, 3), x)).square().sum().backward()
        optimiser.step()

    module, optimiser, names = fresh()
    other, resumed, other_names = fresh()
    for x in (1.0, -2.0, 0.5):
        update(module, optimiser, x)
    tensors, numbers = optimiser_state(optimiser, names, Ranks())
    load_optimiser_state(resumed, other_names, tensors, json.loads(json.dumps(numbers)))
    other.load_state_dict(module.state_dict())
    update(module, optimiser, 3.0)
    update(other, resumed, 3.0)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)
    with pytest.raises(CheckpointMismatch, match="trained other weights"):
        load_optimiser_state(resumed, {key: f"other.{name}" for key, name in other_names.items()}, tensors, numbers)


def test_random_numbers_go_on() -> None:
    def draw() -> tuple[float, float, float, float]:
        return torch.randn(()).item(), np.random.random(), random.random(), random.gauss(0, 1)  # noqa: NPY002

    draw()
    state = json.loads(json.dumps(random_state(CPU)))
    expected = [draw() for _ in range(3)]
    set_random_state(state, CPU)
    assert [draw() for _ in range(3)] == expected
