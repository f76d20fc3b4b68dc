"""Attention and rotary positions.

Shapes: B batch, N tokens (queries), M tokens (keys), H heads, K head width.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROTARY_BASE = 10000.0
MAX_PLAIN_SCORES = 2**25  # that are kept for the backward pass of a block; 128 MB in float32
SOFTMAX_BACKWARD = "_softmax_backward_data"
MIN_HEAD_SCORES = 2**17  # of one head, from which on heads are computed one after another, each in the cache


def attention(q_BNHK: Tensor, k_BMHK: Tensor, v_BMHK: Tensor) -> Tensor:
    """Softmax attention without a mask. -> [B, N, H, K]

    FlashAttention-3 on Hopper where it is installed; else PyTorch chooses among cuDNN, Flash and its own. On a CPU
    the gradient of PyTorch's own takes thrice the time of plain products, which stand in while their scores are few.
    """
    flash = _flash_attention_3() if q_BNHK.is_cuda and q_BNHK.dtype in (torch.bfloat16, torch.float16) else None
    if flash is not None and _is_hopper(q_BNHK.device.index or 0):
        out = flash(q_BNHK, k_BMHK, v_BMHK)
        return out[0] if isinstance(out, tuple) else out  # older builds return the log-sum-exp too
    q, k, v = (x.transpose(1, 2) for x in (q_BNHK, k_BMHK, v_BMHK))
    num_scores = q.shape[:3].numel() * k.shape[2]
    wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if wants_gradient and q.device.type == "cpu" and num_scores <= MAX_PLAIN_SCORES:
        chosen = _attention_by_head if q.shape[2] * k.shape[2] >= MIN_HEAD_SCORES else _plain_attention
        return chosen(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(v.dtype) @ v


def _attention_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `_plain_attention`, in two fifths of its time where the scores of all heads leave the cache."""
    return _forward_by_head(q * q.shape[-1] ** -0.5, k, v)[0]


@torch.library.custom_op("inspatio_sim::attention_by_head", mutates_args=())
def _forward_by_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """[B, H, N, K] each -> [B, H, N, K], and the softmax of the scores. [B, H, N, M]"""
    out, share = _like_output(q, k)
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        p = share[b, h]
        torch.mm(q[b, h], k[b, h].mT, out=p)
        torch.softmax(p, -1, out=p)
        torch.mm(p, v[b, h], out=out[b, h])
    return out, share


@torch.library.custom_op("inspatio_sim::attention_by_head_backward", mutates_args=())
def _backward_by_head(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by queries, keys and values."""
    by_q, by_k, by_v = (x.new_empty(x.shape) for x in (q, k, v))
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        p, g = share[b, h], gradient[b, h]
        torch.mm(p.mT, g, out=by_v[b, h])
        by_scores = _softmax_gradient(g @ v[b, h].mT, p)
        torch.mm(by_scores, k[b, h], out=by_q[b, h])
        torch.mm(by_scores.mT, q[b, h], out=by_k[b, h])
    return by_q, by_k, by_v


def _softmax_gradient(gradient: Tensor, share: Tensor) -> Tensor:
    """By the scores. PyTorch's operator for it is not public; where it is gone, its formula stands in."""
    if hasattr(torch.ops.aten, SOFTMAX_BACKWARD):
        return getattr(torch.ops.aten, SOFTMAX_BACKWARD)(gradient, share, -1, share.dtype)
    return share * (gradient - (gradient * share).sum(-1, keepdim=True))


def _like_output(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(*q.shape[:3], k.shape[2])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return _backward_by_head(gradient, *ctx.saved_tensors)


_forward_by_head.register_fake(lambda q, k, v: _like_output(q, k))
_backward_by_head.register_fake(lambda gradient, q, k, v, share: tuple(x.new_empty(x.shape) for x in (q, k, v)))
_forward_by_head.register_autograd(_gradients, setup_context=_keep)


@functools.cache
def _flash_attention_3() -> Callable[..., Tensor] | None:
    if importlib.util.find_spec("flash_attn_interface") is None:
        return None
    import flash_attn_interface  # pyright: ignore[reportMissingImports]

    return flash_attn_interface.flash_attn_func


@functools.cache
def _is_hopper(device_index: int) -> bool:
    return torch.cuda.get_device_capability(device_index)[0] == 9


def rotary_table(
    frame_idx: Tensor, height: int, width: int, head_dim: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosines and sines that turn the adjacent pairs of a head by frame, row and column.

    Of the K / 2 pairs, the last floor(K / 6) turn with the column, as many before them with the row, the
    rest with the frame. The angle of pair j of n is position * 10000^(-j / n).

    Args:
        frame_idx: time position of each frame. [F]
        height: rows of tokens.
        width: columns of tokens.
        head_dim: K.
        device: where the tables are wanted.

    Returns:
        Each element's cosine, and its sine with the sign that `rotate` needs: -sin on the first of a pair,
        +sin on the second. float32, made in float64. Two of [F * height * width, 1, K]

    Source: RoFormer (arXiv 2104.09864); split over time, height and width as in Wan2.1.
    """
    num_pairs = head_dim // 2
    num_space = num_pairs // 3
    angles = [
        position.double()[:, None] * ROTARY_BASE ** (-torch.arange(n, dtype=torch.float64) / n)
        for position, n in (
            (frame_idx, num_pairs - 2 * num_space),
            (torch.arange(height), num_space),
            (torch.arange(width), num_space),
        )
    ]
    shape = (len(frame_idx), height, width)
    angle = torch.cat(
        [
            angles[0][:, None, None].expand(*shape, -1),
            angles[1][None, :, None].expand(*shape, -1),
            angles[2][None, None].expand(*shape, -1),
        ],
        dim=-1,
    ).reshape(-1, 1, num_pairs)
    cos = angle.cos().repeat_interleave(2, -1)
    sin = torch.stack([-angle.sin(), angle.sin()], -1).flatten(-2)
    return cos.float().to(device), sin.float().to(device)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn every adjacent pair: (a, b) -> (a cos - b sin, a sin + b cos). [B, N, H, K] -> [B, N, H, K]"""
    cos, sin = rotary
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + swapped * sin
