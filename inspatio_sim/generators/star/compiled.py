"""The STAR transformer made ready for torch.compile and CUDA graphs: fewer, larger, fused kernels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from inspatio_sim.files.atomic import writing_to
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.generators.blocks.attention import rotate
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import SelfAttention, StarTransformer, TextKeys, TimeModulation
from inspatio_sim.generators.star.prepared import PreparedTransformer

MAX_SIZES = 64  # shapes that a block may be compiled for: batch and frame sizes, first and later blocks
GRAPH_WARM_UPS = 3
STAR_ENTRY_POINTS = ("forward", "with_keys", "keys_values")  # of a block


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


class HasBlocks(Protocol):
    """A transformer, such as those of STAR and of the frame generator."""

    @property
    def blocks(self) -> Iterable[nn.Module]: ...


def compile_blocks(transformer: HasBlocks, entry_points: Sequence[str] = STAR_ENTRY_POINTS) -> None:
    """Let torch.compile make one kernel sequence for all blocks, in place; compiled when a size first comes.

    The compiler's results are kept on disk, so that the next process finds them.

    Args:
        transformer: its blocks' methods are replaced.
        entry_points: names of those methods.

    Raises:
        InputError: the folder for them cannot be written.
    """
    folder = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled")))
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        NamedTemporaryFile(dir=folder).close()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_SIZES)
    for block in transformer.blocks:
        for name in entry_points:
            setattr(block, name, torch.compile(getattr(block, name), fullgraph=True, dynamic=False))


def num_compiled_graphs() -> int:
    """Graphs compiled in this process so far; it stands still once every size has been seen."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


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
