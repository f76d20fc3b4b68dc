"""Packed products are products, rounded once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.generators.blocks import packed as packed_module
from inspatio_sim.generators.blocks.packed import PackedLinear, can_pack

BF16_STEP = 2.0**-8  # largest relative error of one rounding to bfloat16


def numbers(*shape, seed=0, dtype=torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_packed_products_are_products(dtype, gelu, rows, monkeypatch):
    x = numbers(rows, 48, dtype=dtype)
    linears = [(numbers(n, 48, seed=n, dtype=dtype) / 7, numbers(n, seed=n + 1, dtype=dtype)) for n in (16, 40)]
    packed = PackedLinear(*linears, gelu=gelu)
    with monkeypatch.context() as patched:
        patched.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        plain = PackedLinear(*linears, gelu=gelu)
    assert packed.is_packed == can_pack(dtype)
    assert not plain.is_packed
    expected = torch.cat([F.linear(x.double(), weight.double(), bias.double()) for weight, bias in linears], -1)
    expected = F.gelu(expected, approximate="tanh") if gelu else expected
    # without oneDNN the product is rounded to bfloat16 before GELU too, which has a slope of at most 1.13
    atol = 2e-6 if dtype == torch.float32 else 0.03
    for linear in (packed, plain):
        assert linear(x).shape == (rows, 56)
        torch.testing.assert_close(linear(x).double(), expected, atol=atol, rtol=BF16_STEP if atol > 0.01 else 1e-5)


def test_nothing_is_packed_without_the_operators_for_it(monkeypatch):
    monkeypatch.setattr(packed_module, "OPERATORS", ("_gone",))
    assert not can_pack(torch.float32)
