"""The spatio-temporal cache: what the reference and the last block left in every layer.

Layout of keys and values of one layer, tokens frame-major:

    | reference frames 0..2 | history frames 3..5 | the block being denoised 6..8 |
    |<----------- written by the context pass --->|<- by each denoising pass ---->|

The numbers are rotary time slots; they stay the same whatever the block's index. In a first block there
is no history: its slots are left out of the cache, and the current block still begins at slot 6.
The size is constant: each block overwrites the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.star_config import StarConfig


class STCache:
    """Keys and values of the context for every layer, with room behind them for the current block.

    Shapes: B batch, N tokens, H heads, K head width.
    """

    def __init__(
        self,
        config: StarConfig,
        *,
        batch: int,
        max_context_tokens: int,
        block_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, batch, max_context_tokens + block_tokens, config.num_heads, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.max_context_tokens = max_context_tokens
        self.num_context_tokens = 0

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def reset(self) -> None:
        """Forget the context."""
        self.num_context_tokens = 0

    def begin(self, num_tokens: int) -> None:
        """Start to write a context of so many tokens over the last one."""
        if num_tokens > self.max_context_tokens:
            raise InputError(f"context of {num_tokens} tokens: the cache was made for {self.max_context_tokens}")
        self.num_context_tokens = num_tokens

    def write(self, layer: int, k_BNHK: Tensor, v_BNHK: Tensor) -> None:
        """Store the context's rotated keys and its values in one layer."""
        self.keys[layer, :, : self.num_context_tokens].copy_(k_BNHK)
        self.values[layer, :, : self.num_context_tokens].copy_(v_BNHK)

    def context(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the context alone. Two of [B, N, H, K]"""
        stop = self.num_context_tokens
        return self.keys[layer, :, :stop], self.values[layer, :, :stop]

    def with_room(self, layer: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """The context's keys and values with room behind them for a block's own, which replace the last block's.

        Nothing of the context is copied. Two of [B, M + num_tokens, H, K]
        """
        stop = self.num_context_tokens + num_tokens
        assert stop <= self.keys.shape[2], "a block larger than its room would overwrite the context"
        return self.keys[layer, :, :stop], self.values[layer, :, :stop]


class TapeCache:
    """The context for training: keys and values stay on autograd's tape, and nothing is written in place."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def begin(self, num_tokens: int) -> None:
        """Start to write a new context."""
        self._layers = []

    def write(self, layer: int, k_BNHK: Tensor, v_BNHK: Tensor) -> None:
        """Keep the context's rotated keys and its values of the next layer."""
        assert layer == len(self._layers), f"layer {layer} written after {len(self._layers)} layers"
        self._layers.append((k_BNHK, v_BNHK))

    def context(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the context; None where there is none. Two of [B, N, H, K]"""
        return self._layers[layer] if self._layers else None
