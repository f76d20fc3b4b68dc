import contextlib

import pytest
import torch
from torch import nn

from inspatio_sim.training.engine.ema import Ema


def set_weight(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_closed_form(dtype: torch.dtype) -> None:
    """A constant c approached from 0: c (1 - decay^n); in bfloat16 alone 0.99 would get stuck."""
    module = nn.Linear(2, 1, bias=False).to(dtype)
    set_weight(module, 0.0)
    ema = Ema(module, decay=0.99)
    set_weight(module, 1.0)
    for _ in range(300):
        ema.update(has_started=True)
    torch.testing.assert_close(
        ema.tensors["weight"].double(), torch.full((1, 2), 1 - 0.99**300).double(), rtol=1e-5, atol=0
    )


def test_follows_exactly_until_the_start() -> None:
    module = nn.Linear(2, 1)
    ema = Ema(module, decay=0.9)
    set_weight(module, 5.0)
    ema.update(has_started=False)
    assert (ema.tensors["weight"] == 5).all()
    set_weight(module, 6.0)
    ema.update(has_started=True)
    torch.testing.assert_close(ema.tensors["weight"], torch.full((1, 2), 5.1))


def test_counters_are_copied() -> None:
    module = nn.BatchNorm1d(3)
    ema = Ema(module, decay=0.9)
    for _ in range(4):
        module(torch.randn(5, 3))
    ema.update(has_started=True)
    assert ema.tensors["num_batches_tracked"] == 4
    assert 0 < ema.tensors["running_mean"].abs().max() < module.get_buffer("running_mean").abs().max()


def test_applied_and_back_even_after_an_error() -> None:
    module = nn.Linear(2, 1).to(torch.bfloat16)
    ema = Ema(module, decay=0.5)
    before = {name: tensor.clone() for name, tensor in ema.tensors.items()}
    set_weight(module, 3.0)
    with contextlib.suppress(ZeroDivisionError), ema.applied():
        torch.testing.assert_close(module.weight.float(), before["weight"])
        raise ZeroDivisionError
    assert (module.weight == 3).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ema.tensors.items())


def test_load() -> None:
    ema = Ema(nn.Linear(2, 1), decay=0.5)
    ema.load({"weight": torch.full((1, 2), 7.0), "bias": torch.full((1,), 8.0)})
    assert (ema.tensors["weight"] == 7).all()
    assert (ema.tensors["bias"] == 8).all()
