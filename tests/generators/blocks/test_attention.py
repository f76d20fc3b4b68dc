"""Rotary positions against complex numbers in float64, and attention against its formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.generators.blocks import attention as attention_module
from inspatio_sim.generators.blocks.attention import attention, rotary_table, rotate

SPLITS = {16: (8, 4, 4), 24: (8, 8, 8), 64: (24, 20, 20), 128: (44, 42, 42)}  # of a head over frame, row, column


def random_heads(num_tokens, head_dim, *, seed=0, num_heads=3, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, num_tokens, num_heads, head_dim, generator=generator)


def turned_by_complex_numbers(x, frame_idx, height, width, split):
    """Each adjacent pair as a complex number times e^(i angle), a token at a time."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2))).numpy()
    out = np.empty_like(pairs)
    places = [(f, r, c) for f in frame_idx for r in range(height) for c in range(width)]
    for token, place in enumerate(places):
        angles = [
            position * 10000.0 ** (-j / (channels // 2))
            for position, channels in zip(place, split, strict=True)
            for j in range(channels // 2)
        ]
        out[:, token] = pairs[:, token] * np.exp(1j * np.array(angles))
    return torch.view_as_real(torch.from_numpy(out)).flatten(-2)


@pytest.mark.parametrize("head_dim", sorted(SPLITS))
def test_turning_is_multiplying_by_unit_complex_numbers(head_dim):
    frame_idx, height, width = [0, 1, 2, 6, 8], 3, 4
    x = random_heads(len(frame_idx) * height * width, head_dim)
    turned = rotate(x, rotary_table(torch.tensor(frame_idx), height, width, head_dim))
    expected = turned_by_complex_numbers(x, frame_idx, height, width, SPLITS[head_dim])
    torch.testing.assert_close(turned.double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("head_dim", sorted(SPLITS))
def test_each_axis_has_its_part_of_a_head(head_dim):
    table = rotary_table(torch.tensor([0, 1]), 2, 2, head_dim)[1].view(2, 2, 2, head_dim)  # sines
    assert sum(SPLITS[head_dim]) == head_dim
    edges = np.cumsum((0, *SPLITS[head_dim]))
    for axis, moved in enumerate([(1, 0, 0), (0, 1, 0), (0, 0, 1)]):
        changed = (table[moved] != table[0, 0, 0]).nonzero().flatten().tolist()
        assert changed == list(range(edges[axis], edges[axis + 1]))


def test_position_0_turns_nothing():
    x = random_heads(1, 24)
    assert torch.equal(rotate(x, rotary_table(torch.zeros(1), 1, 1, 24)), x)


@settings(max_examples=20, deadline=None)
@given(
    axis=st.sampled_from([0, 1, 2]),
    first=st.integers(0, 4),
    second=st.integers(0, 4),
    moved=st.integers(0, 5),
    head_dim=st.sampled_from(sorted(SPLITS)),
)
def test_products_depend_on_differences_of_position_alone(axis, first, second, moved, head_dim):
    q, k = (random_heads(1, head_dim, seed=seed) for seed in (1, 2))
    sizes = [1, 1, 1]
    sizes[axis] = 10
    tables = rotary_table(torch.arange(sizes[0]), sizes[1], sizes[2], head_dim)

    def product(q_position, k_position):
        at_q, at_k = ((tables[0][p : p + 1], tables[1][p : p + 1]) for p in (q_position, k_position))
        return (rotate(q, at_q) * rotate(k, at_k)).sum(-1)

    torch.testing.assert_close(product(first, second), product(first + moved, second + moved), atol=2e-5, rtol=1e-5)


def test_angles_are_made_in_float64():
    cos, sin = rotary_table(torch.tensor([100_000]), 1, 1, 24)
    assert cos.dtype == sin.dtype == torch.float32
    assert cos[0, 0, 0].item() == pytest.approx(math.cos(100_000), abs=1e-7)
    assert sin[0, 0, :2].tolist() == pytest.approx([-math.sin(100_000), math.sin(100_000)], abs=1e-7)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (5, 7), (12, 3)])
def test_attention_is_its_formula(num_queries, num_keys):
    q, k, v = (random_heads(n, 24, seed=i) for i, n in enumerate((num_queries, num_keys, num_keys)))
    scores = torch.einsum("bnhk,bmhk->bhnm", q.double(), k.double()) / 24**0.5
    expected = torch.einsum("bhnm,bmhk->bnhk", scores.softmax(-1), v.double())
    out = attention(q, k, v)
    assert out.shape == q.shape
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=0)
    rounded = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(("max_plain_scores", "min_head_scores"), [(0, 0), (2**25, 2**17), (2**25, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_are_those_of_the_formula(dtype, max_plain_scores, min_head_scores, monkeypatch):
    """Of PyTorch's own attention, of plain products, and of those head by head."""
    monkeypatch.setattr(attention_module, "MAX_PLAIN_SCORES", max_plain_scores)
    monkeypatch.setattr(attention_module, "MIN_HEAD_SCORES", min_head_scores)
    q, k, v = ((random_heads(n, 24, seed=i)).to(dtype).requires_grad_() for i, n in enumerate((5, 7, 7)))
    out = attention(q, k, v)
    assert out.dtype == dtype
    weight = random_heads(5, 24, seed=9).to(dtype)
    gradients = torch.autograd.grad((out * weight).sum(), (q, k, v))
    scores = torch.einsum("bnhk,bmhk->bhnm", q.double(), k.double()) / 24**0.5
    expected = torch.einsum("bhnm,bmhk->bnhk", scores.softmax(-1), v.double())
    wanted = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    atol = 1e-12 if dtype == torch.float64 else 0.06
    torch.testing.assert_close(out.double(), expected, atol=atol, rtol=0)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, atol=atol, rtol=0)


def test_heads_one_after_another_are_the_plain_products():
    q, k, v = (random_heads(400, 8, seed=i).requires_grad_() for i in range(3))
    assert q.shape[1] * k.shape[1] >= attention_module.MIN_HEAD_SCORES
    swapped = [x.transpose(1, 2) for x in (q, k, v)]
    expected = attention_module._plain_attention(*swapped).transpose(1, 2)
    torch.testing.assert_close(attention(q, k, v), expected, atol=1e-6, rtol=0)
    torch.library.opcheck(
        attention_module._forward_by_head, tuple(x.detach()[:, :, :3, :4].contiguous() for x in swapped)
    )


def test_the_gradient_of_softmax_does_not_need_the_operator_for_it(monkeypatch):
    scores = random_heads(4, 24, seed=1).double().requires_grad_()
    share, gradient = scores.softmax(-1), random_heads(4, 24, seed=2).double()
    (expected,) = torch.autograd.grad(share, scores, gradient)
    torch.testing.assert_close(attention_module._softmax_gradient(gradient, share.detach()), expected)
    monkeypatch.setattr(attention_module, "SOFTMAX_BACKWARD", "_gone")
    torch.testing.assert_close(attention_module._softmax_gradient(gradient, share.detach()), expected)
