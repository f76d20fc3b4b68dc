"""The frame transformer made ready for a CPU: packed products with fused kernels between them.

The same numbers as `FrameTransformer`, up to rounding; not trainable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.generators.blocks.attention import attention
from inspatio_sim.generators.blocks.cpu_kernels import EPS, add_and_norm, as_array
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.blocks.packed import PackedLinear
from inspatio_sim.generators.frame.model import Block, FrameTransformer
from inspatio_sim.generators.presets.frame_config import FrameConfig


class CpuFrameTransformer:
    """Generates as `FrameTransformer` does; made from one, whose weights it may take over.

    Shapes: B batch, N tokens of all images, n of the noisy one, D width, H heads, K head width; rows are tokens.
    """

    def __init__(self, transformer: FrameTransformer, *, take_over: bool = False) -> None:
        """Pack a transformer's weights.

        Args:
            transformer: as loaded.
            take_over: give its own copies free, block by block; it can no longer be used by itself.
        """
        self.config: FrameConfig = transformer.config
        self.dtype: torch.dtype = transformer.dtype
        self.device: torch.device = transformer.device
        self._plain = transformer.eval().requires_grad_(False)
        self._layers: list[_Layer] = []
        for i, block in enumerate(transformer.blocks):
            self._layers.append(_Layer.of(block, is_last=i == self.config.depth - 1))
            if take_over:
                nothing: Any = nn.Identity()
                block.attn = block.mlp = nothing
        final = transformer.final_layer.linear
        self._final = PackedLinear((final.weight, final.bias))

    def __call__(
        self, x: Tensor, timestep: Tensor, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """As `FrameTransformer`; one timestep for all worlds."""
        return self.denoise(x, self.modulation(timestep), anchors, reference)

    def modulation(self, timestep: Tensor) -> TimeModulation:
        """As `FrameTransformer`; one timestep for all worlds. [1], or [B] of the same"""
        assert (timestep == timestep[0]).all(), "the fused kernels take one modulation for all worlds"
        return self._plain.modulation(timestep[:1])

    def denoise(
        self, x: Tensor, time: TimeModulation, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """As `FrameTransformer`."""
        tokens = self._plain.tokens(x, anchors, reference)
        batch, num_tokens, dim = tokens.shape
        num_wanted = self.config.tokens_of(*x.shape[-2:])
        heads = (self.config.num_heads, self.config.head_dim)
        stream = tokens.reshape(-1, dim).float().numpy()
        normed = torch.empty(batch * num_tokens, dim, dtype=self.dtype)
        y, gate = torch.zeros_like(normed), np.zeros(dim, np.float32)
        for layer, modulation in zip(self._layers, time.blocks, strict=True):
            m = [part.flatten().float().numpy() for part in modulation]
            add_and_norm(stream, as_array(y), gate, m[1], m[0], EPS, as_array(normed))
            if layer.q is None:
                q, k, v = layer.qkv(normed).view(batch, num_tokens, 3, *heads).unbind(2)
            else:
                k, v = layer.qkv(normed).view(batch, num_tokens, 2, *heads).unbind(2)
                wanted = normed.view(batch, num_tokens, dim)[:, :num_wanted].reshape(-1, dim)
                q = layer.q(wanted).view(batch, num_wanted, *heads)
                stream = stream.reshape(batch, num_tokens, dim)[:, :num_wanted].reshape(-1, dim)
                normed = torch.empty_like(wanted)
            attended = layer.proj(attention(q, k, v).reshape(-1, dim))
            add_and_norm(stream, as_array(attended), m[2], m[4], m[3], EPS, as_array(normed))
            y, gate = layer.fc2(layer.fc1(normed)), m[5]
        scale, shift = (part.flatten().float().numpy() for part in (time.head_scale, time.head_shift))
        add_and_norm(stream, as_array(y), gate, scale, shift, EPS, as_array(normed))
        return self._plain.final_layer.image(self._final(normed).view(batch, num_wanted, -1), *x.shape[-2:])


@dataclass(frozen=True)
class _Layer:
    """One block's weights, packed."""

    qkv: PackedLinear  # of the last layer: keys and values
    q: PackedLinear | None  # of the last layer, where fewer tokens ask than are asked
    proj: PackedLinear
    fc1: PackedLinear
    fc2: PackedLinear

    @classmethod
    def of(cls, block: Block, *, is_last: bool) -> _Layer:
        qkv, proj, fc1, fc2 = block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2
        dim = qkv.in_features
        first = dim if is_last else 0
        return cls(
            qkv=PackedLinear((qkv.weight[first:], qkv.bias[first:])),
            q=PackedLinear((qkv.weight[:dim], qkv.bias[:dim])) if is_last else None,
            proj=PackedLinear((proj.weight, proj.bias)),
            fc1=PackedLinear((fc1.weight, fc1.bias), gelu=True),
            fc2=PackedLinear((fc2.weight, fc2.bias)),
        )
