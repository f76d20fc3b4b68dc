"""Fused kernels equal PyTorch's formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inspatio_sim.generators.blocks.attention import rotary_table, rotate
from inspatio_sim.generators.blocks.cpu_kernels import EPS, add_and_norm, as_array, norm_and_rotate, rms_norm

BF16_STEP = 2.0**-8  # largest relative error of one rounding to bfloat16

dtypes = st.sampled_from([torch.float32, torch.bfloat16])


def numbers(*shape, seed=0, dtype=torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(computed: Tensor, expected: Tensor, dtype) -> None:
    """Float32: its rounding. bfloat16: that too, and one rounding of the result."""
    rtol = 2e-5 if dtype == torch.float32 else 1.01 * BF16_STEP
    torch.testing.assert_close(computed.double(), expected.double(), rtol=rtol, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 7), dim=st.integers(2, 70), dtype=dtypes, seed=st.integers(0, 99))
def test_add_and_norm(rows, dim, dtype, seed):
    x, y = numbers(rows, dim, seed=seed), numbers(rows, dim, seed=seed + 1, dtype=dtype)
    gate, scale, shift = (numbers(dim, seed=seed + i) for i in (2, 3, 4))
    out = torch.full((rows, dim), torch.nan, dtype=dtype)
    added = x.double() + gate.double() * y.double()
    expected = F.layer_norm(added, (dim,), scale.double(), shift.double(), 1e-6)
    is_spread = added.std(-1, keepdim=True) > 0.05  # else rounding of the mean is all there is
    stream = x.numpy()
    add_and_norm(stream, as_array(y), gate.numpy(), scale.numpy(), shift.numpy(), EPS, as_array(out))
    torch.testing.assert_close(torch.from_numpy(stream).double(), added, rtol=1e-6, atol=1e-6)
    assert_close(out * is_spread, expected * is_spread, dtype)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 7), dim=st.integers(1, 70), dtype=dtypes, seed=st.integers(0, 99))
def test_rms_norm(rows, dim, dtype, seed):
    x, weight = numbers(rows, dim, seed=seed, dtype=dtype), numbers(dim, seed=seed + 1)
    out = torch.full((rows, dim), torch.nan, dtype=dtype)
    rms_norm(as_array(x), weight.numpy(), EPS, as_array(out))
    assert_close(out, F.rms_norm(x.double(), (dim,), weight.double(), 1e-6), dtype)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    heads=st.tuples(st.integers(1, 3), st.sampled_from([6, 8, 10, 24])),
    offsets=st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)),
    dtype=dtypes,
)
def test_norm_and_rotate(batch, grid, heads, offsets, dtype):
    (frames, rows, columns), (num_heads, head_dim) = grid, heads
    first_column, first_token, more_tokens = offsets
    num_tokens, dim = frames * rows * columns, num_heads * head_dim
    order = torch.cat([torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)])
    order = (head_dim * torch.arange(num_heads)[:, None] + order).flatten()
    x, weight = numbers(batch * num_tokens, first_column + dim + 3, dtype=dtype), numbers(dim, seed=1)
    part = x[:, first_column : first_column + dim].double()
    rotary = rotary_table(torch.arange(frames), rows, columns, head_dim)
    # the plain one reads interleaved pairs; ours come and go as halves
    inverse = order.argsort()
    normed = F.rms_norm(part[:, inverse], (dim,), weight.double()[inverse], 1e-6)
    expected = rotate(normed.view(batch, num_tokens, num_heads, head_dim), rotary).flatten(2)[..., order]
    out = torch.full((batch, first_token + num_tokens + more_tokens, num_heads, head_dim), 7.0, dtype=dtype)
    cos, sin = (table[:, 0, ::2].contiguous().numpy() for table in (rotary[0], -rotary[1]))
    norm_and_rotate(as_array(x), first_column, weight.numpy(), cos, sin, EPS, as_array(out), first_token)
    written = out[:, first_token : first_token + num_tokens]
    assert_close(written.flatten(2), expected, dtype)
    assert (out[:, :first_token] == 7).all()
    assert (out[:, first_token + num_tokens :] == 7).all()


def stored(values: Tensor) -> Tensor:
    """Values as `add_and_norm` stores them as bfloat16: each alone, as the shift of a row that is constant."""
    values = values.contiguous()
    stream, zeros = np.zeros((1, len(values)), np.float32), np.zeros(len(values), np.float32)
    out = torch.empty(1, len(values), dtype=torch.bfloat16)
    add_and_norm(stream, stream.copy(), zeros, zeros, values.numpy(), EPS, as_array(out))
    return out[0]


SPECIAL = {
    "tie to even, down": 0x3F808000,
    "tie to even, up": 0x3F818000,
    "just above a tie": 0x3F808001,
    "just below a tie": 0x3F817FFF,
    "carry into the exponent": 0x3FFFFFFF,
    "minus a tie": 0xBF818000,
    "largest float32 becomes infinity": 0x7F7FFFFF,
    "largest bfloat16": 0x7F7F7FFF,
    "infinity": 0x7F800000,
    "minus infinity": 0xFF800000,
    "smallest subnormal vanishes": 0x00000001,
    "tie of subnormals, down": 0x00008000,
    "tie of subnormals, up": 0x00018000,
    "subnormal becomes normal": 0x007FFFFF,
    "minus a subnormal": 0x80018000,
}


@pytest.mark.parametrize("name", SPECIAL)
def test_rounding_to_bfloat16_is_to_nearest_even(name):
    value = torch.tensor([SPECIAL[name]], dtype=torch.int64).to(torch.uint32).view(torch.float32)
    rounded = stored(value)
    assert rounded.view(torch.int16).item() == value.bfloat16().view(torch.int16).item()


@settings(max_examples=50, deadline=None)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_any_bits_round_as_in_pytorch(bits):
    values = torch.tensor(bits, dtype=torch.int64).to(torch.uint32).view(torch.float32)
    values = torch.where(values.isnan() | (values == 0), 1.0, values)  # -0 may come out as 0
    assert torch.equal(stored(values), values.bfloat16())


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000])  # those that arithmetic gives
def test_nan_stays_nan(bits):
    assert stored(torch.tensor([bits], dtype=torch.int64).to(torch.uint32).view(torch.float32)).isnan().all()


def test_arrays_are_the_tensors_memory():
    for dtype in (torch.float32, torch.bfloat16):
        tensor = torch.zeros(3, dtype=dtype)
        as_array(tensor)[1] = 1
        assert tensor[1] != 0
