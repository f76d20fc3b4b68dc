"""What lies between the matrix products of a block, fused for a CPU: each kernel reads and writes a row once.

Rows are tokens. The residual stream is float32; what goes to the products is float32 or bfloat16, the
latter seen as uint16 (numba has none): its bits are the upper half of a float32.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.generators.blocks.modulation import NORM_EPS
from inspatio_sim.kernels import kernel_with

EPS = np.float32(NORM_EPS)

# Sums may be reordered, which is what lets them be vectorised; nothing else about floats is relaxed.
kernel = kernel_with(fastmath={"reassoc", "contract", "nsz"})


def as_array(tensor: Tensor) -> NDArray:
    """The tensor's memory for a kernel: float32, or bfloat16 as uint16; no copy."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@kernel
def _load(source, row, row_bits):
    """A row of float32 or bfloat16 into float32; `row_bits` is the same memory as uint32."""
    if source.itemsize == 2:
        for i in range(source.shape[0]):
            row_bits[i] = np.uint32(source[i]) << np.uint32(16)
    else:
        for i in range(source.shape[0]):
            row[i] = source[i]


@kernel
def _store(row, row_bits, target):
    """A float32 row to float32 or bfloat16, rounded to nearest even."""
    if target.itemsize == 2:
        for i in range(target.shape[0]):
            bits = row_bits[i]
            target[i] = np.uint16(
                (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )
    else:
        for i in range(target.shape[0]):
            target[i] = row[i]


@kernel
def add_and_norm(x, y, gate, scale, shift, eps, out):
    """Add and normalise: x += gate y; out = layer_norm(x) scale + shift.

    x: residual stream, changed. [R, D]; y: what the last product gave. [R, D]; gate, scale, shift: float32. [D];
    out: [R, D]
    """
    num_rows, dim = x.shape
    inverse_dim = np.float32(1) / np.float32(dim)
    row = np.empty(dim, np.float32)
    bits = row.view(np.uint32)
    for r in range(num_rows):
        x_row = x[r]
        _load(y[r], row, bits)
        total = np.float32(0)
        for i in range(dim):
            row[i] = x_row[i] + gate[i] * row[i]
            total += row[i]
        mean = total * inverse_dim
        squares = np.float32(0)
        for i in range(dim):
            x_row[i] = row[i]
            row[i] -= mean
            squares += row[i] * row[i]
        inverse = np.float32(1) / np.sqrt(squares * inverse_dim + eps)
        for i in range(dim):
            row[i] = row[i] * inverse * scale[i] + shift[i]
        _store(row, bits, out[r])


@kernel
def rms_norm(x, weight, eps, out):
    """Normalise: out = x / rms(x) weight. [R, D] -> [R, D]"""
    num_rows, dim = x.shape
    row = np.empty(dim, np.float32)
    bits = row.view(np.uint32)
    for r in range(num_rows):
        _load(x[r], row, bits)
        squares = np.float32(0)
        for i in range(dim):
            squares += row[i] * row[i]
        inverse = np.float32(1) / np.sqrt(squares / np.float32(dim) + eps)
        for i in range(dim):
            row[i] = row[i] * inverse * weight[i]
        _store(row, bits, out[r])


@kernel
def norm_and_rotate(x, first_column, weight, cos, sin, eps, out, first_token):
    """RMS norm over all heads, then rotary positions on halves of each head.

    x: `D` columns from `first_column` are read; a head's even elements come before its odd ones. [B N, E];
    weight: in the same order. [D]; cos, sin: [N, K / 2]; out: `N` tokens from `first_token` are written. [B, M, H, K]
    """
    num_tokens, half = cos.shape
    batch, _, num_heads, head_dim = out.shape
    dim = num_heads * head_dim
    row = np.empty(dim, np.float32)
    bits = row.view(np.uint32)
    turned = np.empty(dim, np.float32)
    turned_bits = turned.view(np.uint32)
    for b in range(batch):
        for n in range(num_tokens):
            _load(x[b * num_tokens + n][first_column : first_column + dim], row, bits)
            squares = np.float32(0)
            for i in range(dim):
                squares += row[i] * row[i]
            inverse = np.float32(1) / np.sqrt(squares / np.float32(dim) + eps)
            for i in range(dim):
                row[i] = row[i] * inverse * weight[i]
            cos_row, sin_row = cos[n], sin[n]
            for h in range(num_heads):
                even = row[h * head_dim : h * head_dim + half]
                odd = row[h * head_dim + half : (h + 1) * head_dim]
                turned_even = turned[h * head_dim : h * head_dim + half]
                turned_odd = turned[h * head_dim + half : (h + 1) * head_dim]
                for j in range(half):
                    turned_even[j] = even[j] * cos_row[j] - odd[j] * sin_row[j]
                    turned_odd[j] = even[j] * sin_row[j] + odd[j] * cos_row[j]
            _store(turned, turned_bits, out[b, first_token + n].reshape(dim))
