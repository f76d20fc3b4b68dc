"""What every network's loader needs: devices, precisions, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, get_args

import torch
from torch import nn

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.packed import can_pack
from inspatio_sim.generators.options import Precision
from inspatio_sim.kernels import has_bfloat16_units

Module = TypeVar("Module", bound=nn.Module)

RANDOM_SEED = 0  # of random weights
RANDOM_NOTICE = (
    "RANDOM WEIGHTS: nothing here was ever trained; what is generated is noise, only time and memory are real"
)


def chosen_dtype(name: str, device: torch.device) -> torch.dtype:
    """A precision by its name; `auto`: bfloat16 where the device multiplies it natively.

    Raises:
        InputError: there is no such precision.
    """
    if name not in get_args(Precision):
        raise InputError(f"dtype={name!r}: want one of {', '.join(get_args(Precision))}")
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    is_fast = device.type == "cuda" or (has_bfloat16_units() and can_pack(torch.bfloat16))
    return torch.bfloat16 if is_fast else torch.float32


def randomly_made(make: Callable[[], Module], dtype: torch.dtype, device: torch.device) -> Module:
    """A network as its constructor makes it, from a fixed seed, straight in its precision and on its device."""
    default = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    try:
        torch.set_default_dtype(dtype)
        with torch.random.fork_rng(devices=devices), torch.device(device):
            torch.manual_seed(RANDOM_SEED)
            return make().eval()
    finally:
        torch.set_default_dtype(default)
