"""Work spread over processes, its results in order."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from inspatio_sim.errors import InputError

Result = TypeVar("Result")
Make = Callable[[], Callable[[int], Result]]
"""Builds, once in each process, what then does the work of each index."""

AHEAD = 4  # indices a worker has before it

_work: Callable[[int], Any] | None = None  # of a worker process


def in_order(make: Make[Result], indices: Sequence[int], num_workers: int) -> Generator[Result, None, None]:
    """Results for the indices, one after another, made by processes of one thread each.

    Args:
        make: something that pickles, if there are workers.
        indices: what is to be done.
        num_workers: processes; 0: this one does it.

    Raises:
        InputError: what the work raises; or a process died.
    """
    if not num_workers:
        yield from map(make(), indices)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit threads of torch and numba
    pool = ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=_begin, initargs=(make,))
    pending: deque[Future[Result]] = deque()
    try:
        for index in indices:
            pending.append(pool.submit(_do, index))
            if len(pending) >= AHEAD * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise InputError("a worker process died, perhaps for lack of memory: want fewer (data.workers)") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(make: Make[Any]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, which ends the others
    torch.set_num_threads(1)
    _work = make()


def _do(index: int) -> Any:
    assert _work is not None, "workers begin with what they do"
    return _work(index)
