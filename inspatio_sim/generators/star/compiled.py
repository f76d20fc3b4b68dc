"""The STAR transformer made ready for a GPU: fewer, larger products, and passes replayed as CUDA graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from inspatio_sim.generators.blocks.attention import rotate
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import SelfAttention, StarTransformer, TextKeys
from inspatio_sim.generators.star.prepared import PreparedTransformer

GRAPH_WARM_UPS = 3
ENTRY_POINTS = ("forward", "with_keys", "keys_values")  # of a block, to be compiled


def fuse_projections(transformer: StarTransformer) -> None:
    """Make the three projections of every self-attention one product, in place; not trainable afterwards."""
    for block in transformer.eval().requires_grad_(False).blocks:
        fused: Any = FusedSelfAttention(block.self_attn)
        block.self_attn = fused


class FusedSelfAttention(nn.Module):
    """`SelfAttention` with one product for queries, keys and values."""

    def __init__(self, separate: SelfAttention) -> None:
        super().__init__()
        self.num_heads = separate.num_heads
        linears = (separate.q, separate.k, separate.v)
        self.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
        self.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
        self.o = separate.o
        self.norm_q, self.norm_k = separate.norm_q, separate.norm_k

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] -> q, k, v, each [B, N, H, K]"""
        q, k, v = nn.functional.linear(x, self.weight, self.bias).chunk(3, dim=-1)
        return self._turned(self.norm_q(q), rotary), self._turned(self.norm_k(k), rotary), self._heads(v)

    def keys_values(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """[B, N, D] -> k, v, each [B, N, H, K]"""
        dim = self.o.in_features
        k, v = nn.functional.linear(x, self.weight[dim:], self.bias[dim:]).chunk(2, dim=-1)
        return self._turned(self.norm_k(k), rotary), self._heads(v)

    def _turned(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        return rotate(self._heads(x), rotary).to(x.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


@dataclass
class _Recording:
    """A pass as one CUDA graph, with the memory that it reads and writes beside its cache."""

    graph: torch.cuda.CUDAGraph
    latents: Tensor
    text: TextKeys
    out: Tensor | None
    held: tuple[Any, ...]


class GraphedTransformer(PreparedTransformer):
    """Replays each pass as one CUDA graph: nothing is launched from Python but the replay.

    A pass is recorded when its shapes, step and cache first come together, and forgotten with its cache.
    """

    def __init__(self, transformer: StarTransformer) -> None:
        super().__init__(transformer)
        self._recordings: WeakKeyDictionary[STCache, dict[tuple[Any, ...], _Recording]] = WeakKeyDictionary()

    def write_context(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> None:
        """As `StarTransformer`."""
        self._replay("write_context", latents, time, text, rotary, cache)
        cache.begin(rotary[0].shape[0])  # as the recorded pass did

    def denoise(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> Tensor:
        """As `StarTransformer`."""
        out = self._replay("denoise", latents, time, text, rotary, cache)
        assert out is not None, "denoising gives a flow"
        return out.clone()

    def _replay(
        self,
        name: str,
        latents: Tensor,
        time: TimeModulation,
        text: TextKeys,
        rotary: tuple[Tensor, Tensor],
        cache: STCache,
    ) -> Tensor | None:
        num_context = 0 if name == "write_context" else cache.num_context_tokens
        key = (name, latents.shape, latents.dtype, id(time), id(rotary), num_context)
        recordings = self._recordings.setdefault(cache, {})
        if key not in recordings:
            recordings[key] = self._record(name, latents, time, text, rotary, cache)
        recording = recordings[key]
        recording.latents.copy_(latents)
        for own, given in zip(recording.text.keys + recording.text.values, text.keys + text.values, strict=True):
            own.copy_(given)
        recording.graph.replay()
        return recording.out

    def _record(
        self,
        name: str,
        latents: Tensor,
        time: TimeModulation,
        text: TextKeys,
        rotary: tuple[Tensor, Tensor],
        cache: STCache,
    ) -> _Recording:
        run = getattr(self._plain, name)
        latents = latents.clone()
        text = TextKeys([k.clone() for k in text.keys], [v.clone() for v in text.values])
        side_stream = torch.cuda.Stream(self.device)
        side_stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side_stream):
            for _ in range(GRAPH_WARM_UPS):
                run(latents, time, text, rotary, cache)
        torch.cuda.current_stream(self.device).wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run(latents, time, text, rotary, cache)
        return _Recording(graph, latents, text, out, (time, rotary))
