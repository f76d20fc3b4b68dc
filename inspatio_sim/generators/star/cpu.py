"""The STAR transformer made ready for a CPU: packed products with fused kernels between them.

The same numbers as `StarTransformer`, up to rounding, in about two thirds of the time; not trainable.
Queries and keys have each head's even elements before its odd ones, so that rotary positions turn halves;
products of queries and keys do not change when both are reordered alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inspatio_sim.generators.blocks.attention import attention
from inspatio_sim.generators.blocks.cpu_kernels import EPS, add_and_norm, as_array, norm_and_rotate, rms_norm
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.blocks.packed import PackedLinear
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import Block, StarTransformer, TextKeys
from inspatio_sim.generators.star.prepared import PreparedTransformer


class CpuTransformer(PreparedTransformer):
    """Generates as `StarTransformer` does; made from one, whose weights it may take over.

    Shapes: B batch, N tokens, R = B N rows, D width, H heads, K head width.
    """

    def __init__(self, transformer: StarTransformer, *, take_over: bool = False) -> None:
        """Pack a transformer's weights.

        Args:
            transformer: as loaded.
            take_over: give its own copies free, block by block; it can no longer be used by itself.
        """
        super().__init__(transformer.eval().requires_grad_(False))
        order = _halves(self.config.num_heads, self.config.head_dim)
        self._layers: list[_Layer] = []
        for i, block in enumerate(transformer.blocks):
            self._layers.append(_Layer.of(block, order, is_last=i == self.config.num_layers - 1))
            if take_over:
                nothing: Any = nn.Identity()
                block.self_attn = block.cross_attn.q = block.cross_attn.o = block.ffn = nothing
        self._ones = np.ones(self.config.dim, np.float32)
        self._zeros = np.zeros(self.config.dim, np.float32)

    def time_modulation(self, timestep: Tensor) -> TimeModulation:
        """As `StarTransformer`; one timestep for all worlds. [1]"""
        assert len(timestep) == 1, "the fused kernels take one modulation for all worlds"
        return super().time_modulation(timestep)

    def write_context(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> None:
        """As `StarTransformer`, but with its own order within the cached keys."""
        x = self._plain.tokens(latents)
        cache.begin(x.shape[1])
        self._run(x, time, text, rotary, cache, is_context=True)

    def denoise(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> Tensor:
        """As `StarTransformer`."""
        x = self._run(self._plain.tokens(latents), time, text, rotary, cache, is_context=False)
        return self._plain.head(x.to(self.dtype), time, *latents.shape[-2:])

    def _run(
        self,
        tokens: Tensor,
        time: TimeModulation,
        text: TextKeys,
        rotary: tuple[Tensor, Tensor],
        cache: STCache,
        *,
        is_context: bool,
    ) -> Tensor:
        batch, num_tokens, dim = tokens.shape
        rows = batch * num_tokens
        heads = (batch, num_tokens, self.config.num_heads, self.config.head_dim)
        first = 0 if is_context else cache.num_context_tokens
        stop = first + num_tokens
        cos, sin = (table[:, 0, ::2].contiguous().numpy() for table in (rotary[0], -rotary[1]))
        x = tokens.reshape(rows, dim).float().numpy().copy()
        normed = torch.empty(rows, dim, dtype=self.dtype)
        q = torch.empty(heads, dtype=self.dtype)
        y, gate = normed, self._zeros
        normed.zero_()
        for i, (layer, modulation) in enumerate(zip(self._layers, time.blocks, strict=True)):
            m = [part.flatten().float().numpy() for part in modulation]
            add_and_norm(x, as_array(y), gate, m[1], m[0], EPS, as_array(normed))
            is_last_context = is_context and i == len(self._layers) - 1
            qkv = layer.kv(normed) if is_last_context and layer.kv else layer.qkv(normed)
            keys, values = cache.keys[i], cache.values[i]
            fused = as_array(qkv)
            norm_and_rotate(fused, qkv.shape[1] - 2 * dim, layer.norm_k, cos, sin, EPS, as_array(cache.keys[i]), first)
            if not is_last_context:
                norm_and_rotate(fused, 0, layer.norm_q, cos, sin, EPS, as_array(q), 0)
            values[:, first:stop].copy_(qkv[:, -dim:].view(heads))
            if is_last_context:
                break
            attended = attention(q, keys[:, :stop], values[:, :stop]).reshape(rows, dim)
            add_and_norm(x, as_array(layer.o(attended)), m[2], *layer.norm3, EPS, as_array(normed))
            y = layer.cross_q(normed)
            rms_norm(as_array(y), layer.cross_norm_q, EPS, as_array(normed))
            attended = attention(normed.view(heads), text.keys[i], text.values[i]).reshape(rows, dim)
            add_and_norm(x, as_array(layer.cross_o(attended)), self._ones, m[4], m[3], EPS, as_array(normed))
            y, gate = layer.ffn_out(layer.ffn_in(normed)), m[5]
        result = torch.from_numpy(x)
        if not is_context:
            result.addcmul_(y.float(), torch.from_numpy(gate))
        return result.view(batch, num_tokens, dim)


@dataclass(frozen=True)
class _Layer:
    """One block's weights, packed."""

    qkv: PackedLinear
    kv: PackedLinear | None  # of the last layer, whose context leaves nothing else
    o: PackedLinear
    cross_q: PackedLinear
    cross_o: PackedLinear
    ffn_in: PackedLinear
    ffn_out: PackedLinear
    norm_q: NDArray[np.float32]
    norm_k: NDArray[np.float32]
    norm3: tuple[NDArray[np.float32], NDArray[np.float32]]  # scale, shift
    cross_norm_q: NDArray[np.float32]

    @classmethod
    def of(cls, block: Block, order: Tensor, *, is_last: bool) -> _Layer:
        own, cross = block.self_attn, block.cross_attn
        q, k = ((linear.weight[order], linear.bias[order]) for linear in (own.q, own.k))
        v = (own.v.weight, own.v.bias)
        ffn_in, _, ffn_out = block.ffn
        assert isinstance(ffn_in, nn.Linear)
        assert isinstance(ffn_out, nn.Linear)
        return cls(
            qkv=PackedLinear(q, k, v),
            kv=PackedLinear(k, v) if is_last else None,
            o=PackedLinear((own.o.weight, own.o.bias)),
            cross_q=PackedLinear((cross.q.weight, cross.q.bias)),
            cross_o=PackedLinear((cross.o.weight, cross.o.bias)),
            ffn_in=PackedLinear((ffn_in.weight, ffn_in.bias), gelu=True),
            ffn_out=PackedLinear((ffn_out.weight, ffn_out.bias)),
            norm_q=own.norm_q.weight[order].float().numpy(),
            norm_k=own.norm_k.weight[order].float().numpy(),
            norm3=(block.norm3.weight.float().numpy(), block.norm3.bias.float().numpy()),
            cross_norm_q=cross.norm_q.weight.float().numpy(),
        )


def _halves(num_heads: int, head_dim: int) -> Tensor:
    """Order of a full width in which every head has its even elements first. [D]"""
    head = torch.cat([torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)])
    return (head_dim * torch.arange(num_heads)[:, None] + head).flatten()
