"""What a timestep does to a transformer: a scale, a shift and a gate for every norm of a block, and for the head.

Shapes: B batch, N tokens, D width. B is 1 where all worlds share a timestep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class BlockModulation(NamedTuple):
    """What the timestep does to one block: y = (1 + scale) norm(x) + shift, x = x + gate f(y). Each [B, 1, D]"""

    attention_shift: Tensor
    attention_scale: Tensor  # 1 + scale
    attention_gate: Tensor
    ffn_shift: Tensor
    ffn_scale: Tensor  # 1 + scale
    ffn_gate: Tensor


@dataclass(frozen=True)
class TimeModulation:
    """All that the network takes from a timestep; made once per step list. B is 1 where all worlds share it."""

    blocks: list[BlockModulation]
    head_shift: Tensor  # [B, 1, D]
    head_scale: Tensor  # 1 + scale. [B, 1, D]


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of [B, N, D], times scale plus shift, [1 or B, 1, D]: one kernel where all items share them."""
    if scale.shape[0] == 1:
        return F.layer_norm(x, x.shape[-1:], scale[0, 0], shift[0, 0], NORM_EPS)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), scale)


def modulation_table(*shape: int) -> nn.Parameter:
    """A learned offset of a modulation, at first normal numbers over the root of the width. [..., D]

    Nothing on the meta device: to draw numbers there PyTorch imports its compiler, which takes seconds.
    """
    table = torch.empty(shape)
    return nn.Parameter(table if table.is_meta else table.normal_() / shape[-1] ** 0.5)
