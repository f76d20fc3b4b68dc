"""How compiled CPU kernels are declared and run: numba without the GIL, on a small thread pool.

Work is cut into a fixed number of chunks, whatever the number of cores, so the same input gives the
same bytes everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

kernel = numba.njit(nogil=True, cache=True, error_model="numpy")
"""Decorator of every kernel: compiled on first use, then read from the cache beside the source."""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """Threads do not survive a fork; the child makes its own pool."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def run_chunks(function: Callable[..., Any], chunk_arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call `function(*arguments)` for every chunk, in parallel; results in order."""
    global _pool
    if len(chunk_arguments) == 1:
        return [function(*chunk_arguments[0])]
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="inspatio-kernel")
    first, *others = chunk_arguments
    futures = [_pool.submit(function, *arguments) for arguments in others]
    results = [function(*first)]  # the calling thread works too
    return results + [future.result() for future in futures]


def chunk_bounds(num_items: int, num_chunks: int) -> list[tuple[int, int]]:
    """Cut `range(num_items)` into `num_chunks` even, contiguous (start, stop) pieces."""
    edges = [num_items * i // num_chunks for i in range(num_chunks + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
