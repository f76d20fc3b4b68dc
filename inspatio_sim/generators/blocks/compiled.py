"""Blocks of a transformer through torch.compile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

import torch
from torch import nn

from inspatio_sim.files.atomic import writing_to
from inspatio_sim.files.caches import cache_folder

MAX_SIZES = 64  # shapes that a block may be compiled for: batch and frame sizes, first and later blocks


class HasBlocks(Protocol):
    """A transformer, such as those of STAR and of the frame generator."""

    @property
    def blocks(self) -> Iterable[nn.Module]: ...


def compile_blocks(transformer: HasBlocks, entry_points: Sequence[str]) -> None:
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
