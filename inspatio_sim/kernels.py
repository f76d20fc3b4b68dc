"""How compiled CPU kernels are declared and run: numba without the GIL, on a small thread pool.

Work is cut into a fixed number of chunks, whatever the number of cores, so the same input gives the
same bytes everywhere.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numba

from inspatio_sim.files.caches import temporary_folder


def kernel_with(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a kernel with more options of `numba.njit`.

    It is compiled on first use, then read from a cache: $NUMBA_CACHE_DIR, or beside the source, or in the user's home,
    whichever is the first that can be written, or else the temporary folder of `inspatio_sim.files.caches`.
    """

    def declare(function: Callable[..., Any], *, cache: bool = True) -> Any:
        return numba.njit(nogil=True, error_model="numpy", cache=cache, **options)(function)

    def declare_with_cache(function: Callable[..., Any]) -> Any:
        if _numba_knows_a_home():
            with suppress(RuntimeError):  # neither can be written
                return declare(function)
        folder = temporary_folder()
        if folder is None:
            return declare(function, cache=False)
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "kernels")  # worker processes find it there
        numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # pyright: ignore
        return declare(function)

    return declare_with_cache


def _numba_knows_a_home() -> bool:
    """For a user without one it would make a folder `~` where the process happens to be."""
    return bool(
        numba.config.CACHE_DIR  # pyright: ignore
        or os.environ.get("XDG_CACHE_HOME")
        or os.path.isabs(os.path.expanduser("~"))
    )


kernel = kernel_with()
"""Decorator of all kernels without options of their own."""

_pool: ThreadPoolExecutor | None = None
_num_threads = os.cpu_count() or 1
_thread = threading.local()  # `is_busy`: this thread works on a chunk


def set_num_threads(num_threads: int) -> None:
    """How many threads of this process work on chunks, the calling one included.

    At first one for every core; after a fork one, see `inspatio_sim.machine.forks`.
    """
    global _num_threads, _pool
    _num_threads = num_threads
    _pool = None


os.register_at_fork(after_in_child=lambda: set_num_threads(1))


def run_chunks(function: Callable[..., Any], chunk_arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call `function(*arguments)` for every chunk, in parallel; results in order.

    The calling thread works too. A chunk that calls `run_chunks` itself runs its own chunks one by one.
    """
    global _pool
    if len(chunk_arguments) == 1 or _num_threads == 1 or getattr(_thread, "is_busy", False):
        return [function(*arguments) for arguments in chunk_arguments]
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=_num_threads - 1, thread_name_prefix="inspatio-kernel")
    results: list[Any] = [None] * len(chunk_arguments)
    waiting = deque(range(len(chunk_arguments)))

    def work() -> None:
        _thread.is_busy = True
        try:
            while waiting:
                try:
                    i = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[i] = function(*chunk_arguments[i])
        finally:
            _thread.is_busy = False

    helpers = [_pool.submit(work) for _ in range(min(_num_threads, len(chunk_arguments)) - 1)]
    try:
        work()
    finally:
        waiting.clear()  # non-empty only after an error
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    return results


def chunk_bounds(num_items: int, num_chunks: int) -> list[tuple[int, int]]:
    """Cut `range(num_items)` into `num_chunks` even, contiguous (start, stop) pieces."""
    edges = [num_items * i // num_chunks for i in range(num_chunks + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def has_bfloat16_units() -> bool:
    """Whether this processor has native bfloat16 products.

    PyTorch's checks for it are private; if one is missing, the answer is no.
    """
    import torch  # heavy

    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
