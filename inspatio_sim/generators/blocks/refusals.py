"""What networks refuse, in one line each: sizes that are not whole tokens, seeds, batches that memory cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from inspatio_sim.errors import GenerationFailed, InputError, NotEnoughMemory

OUT_OF_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # of a CPU, of CUDA, of its libraries


def checked_seed(seed: int) -> int:
    """A seed that torch takes.

    Raises:
        InputError: it is no whole number, or out of range.
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r}: want a whole number from 0 to 2^63 - 1")
    return int(seed)


def check_whole_tokens(height_px: int, width_px: int, token_px: int) -> None:
    """Frames must be whole tokens of `token_px` pixels a side.

    Raises:
        InputError: names the nearest size that is.
    """
    if height_px % token_px or width_px % token_px:
        nearest = [max(1, round(edge / token_px)) * token_px for edge in (height_px, width_px)]
        raise InputError(
            f"frames of {height_px}x{width_px} px: want multiples of {token_px}, "
            f"the nearest is {nearest[0]}x{nearest[1]}"
        )


def check_finite(**results: Tensor) -> None:
    """The results of the parts of a generator, by the parts' names.

    Raises:
        GenerationFailed: one of them has NaN or infinity.
    """
    for part, result in results.items():
        if not result.sum().isfinite():
            raise GenerationFailed(f"the {part} gave NaN or infinity: damaged weights, or float16 that overflows")


@contextmanager
def naming_what_is_too_big(
    device: torch.device, num_worlds: int, size_px: tuple[int, int], hints: Sequence[str]
) -> Iterator[None]:
    """Turn a device's refusals into one line with what would help.

    Args:
        device: where it runs.
        num_worlds: in the batch.
        size_px: (height, width) of their frames.
        hints: what would help, best first.

    Raises:
        NotEnoughMemory: what was done inside did not fit.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not is_memory and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        worlds = "1 world" if num_worlds == 1 else f"{num_worlds} worlds"
        raise NotEnoughMemory(
            f"{worlds} at {size_px[0]}x{size_px[1]} px: out of memory on {device}: want {', or '.join(hints)}"
        ) from error
