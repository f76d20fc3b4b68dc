"""Forks: the pools of threads of torch and OpenCV are put away before one, and the child works on one thread.

A fork copies no threads. Without this a child waits for ever for those of its parent's OpenMP pool, and OpenCV crashes
when it joins them. The pools come back by themselves where they are needed again.
"""

from __future__ import annotations

import ctypes
import os
import sys

OMP_PAUSE_SOFT = 1  # of `omp_pause_resource_t`

_cv2_threads = 1


def _put_pools_away() -> None:
    """End the calling thread's OpenMP pool and that of OpenCV."""
    global _cv2_threads
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)  # of the OpenMP that torch loaded
    if pause is not None:
        pause(OMP_PAUSE_SOFT)
    if "cv2" in sys.modules:
        cv2 = sys.modules["cv2"]
        _cv2_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)


def _go_on() -> None:
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(_cv2_threads)


def _work_on_one_thread() -> None:
    """Children are mostly one of many; OpenCV's one thread it has from its parent."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "torch._inductor.config" in sys.modules:  # else it waits for the parent's pool, which has no threads here
        sys.modules["torch._inductor.config"].compile_threads = 1


os.register_at_fork(before=_put_pools_away, after_in_parent=_go_on, after_in_child=_work_on_one_thread)
