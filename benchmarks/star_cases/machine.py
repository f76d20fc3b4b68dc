"""What the machine can do, and what a process takes of it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from inspatio_sim.errors import InputError

Answer = TypeVar("Answer")

MatmulShape = tuple[int, int, int]  # rows, inputs, outputs


def say(text: str) -> None:
    """A line of progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def matmul_flop_per_s(shapes: list[MatmulShape], dtype: torch.dtype, device: torch.device, repeats: int = 12) -> float:
    """The best rate that `F.linear` reaches, over shapes and repeats."""
    best = 0.0
    for rows, inputs, outputs in shapes:
        rng = torch.Generator(device).manual_seed(0)
        x = torch.randn(rows, inputs, generator=rng, device=device).to(dtype)
        weight = torch.randn(outputs, inputs, generator=rng, device=device).to(dtype)
        for _ in range(3):
            F.linear(x, weight)
        for _ in range(repeats):
            synchronize(device)
            started_s = time.perf_counter()
            F.linear(x, weight)
            synchronize(device)
            best = max(best, 2 * rows * inputs * outputs / (time.perf_counter() - started_s))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident_bytes() -> int:
    """Main memory that this process has now."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """The most main memory that this process ever had, or since `forget_peak`."""
    return _status_bytes("VmHWM")


def forget_peak() -> None:
    """Count the peak from now on, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def in_fresh_process(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call a function in a Python process of its own, so that nothing measured before counts.

    Raises:
        InputError: as the function did.
        RuntimeError: the function raised anything else, whose text this one has, or the process died.
    """
    threads = (torch.get_num_threads(),)
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, threads) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: Callable[..., Answer], arguments: tuple[Any, ...]) -> Answer:
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:  # many of PyTorch's cannot be sent to another process
        traceback.print_exc()
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


@contextmanager
def empty_cache_folder() -> Iterator[None]:
    """Keep latents and compiled kernels of the benchmark in a folder that begins empty and goes when it ends."""
    before = {name: os.environ.get(name) for name in ("INSPATIO_CACHE", "TORCHINDUCTOR_CACHE_DIR")}
    with TemporaryDirectory(prefix="inspatio-benchmark-") as folder:
        os.environ["INSPATIO_CACHE"] = folder
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
