"""What every network's loader needs: devices, precisions, random weights that say so, the small video codec."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

import torch
from torch import nn

from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.packed import can_pack
from inspatio_sim.generators.options import Precision
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.presets.registry import Preset
from inspatio_sim.kernels import has_bfloat16_units

log = logging.getLogger(__name__)

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


def files_of(preset: Preset, folder: str | Path | None, *, random_weights: bool) -> dict[Role, Path]:
    """The preset's files; none, said loudly, where its weights are to be random.

    Raises:
        InputError: files are missing (names each one and where it is published), or both a folder and random
            weights are asked for.
        CheckpointMismatch: a transformer by that name is another model.
    """
    if random_weights:
        if folder is not None:
            raise InputError(f"weights={str(folder)!r} and random_weights: want one or the other")
        log.warning("%s (preset %s)", RANDOM_NOTICE, preset.name)
        return {}
    try:
        return find_weights(preset, folder)
    except InputError as error:
        raise type(error)(f"{error}; or try the machinery with random weights (random_weights)") from error


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


def tiny_codec(config: TinyConfig, path: Path | None, dtype: torch.dtype, device: torch.device) -> TinyCodec:
    """The small video codec with its weights; None: seeded random ones."""
    if path is None:
        network = randomly_made(lambda: TinyAutoencoder(config), dtype, device)
    else:
        with torch.device("meta"):
            network = TinyAutoencoder(config)
        load_weights(network, path, dtype=dtype, device=device)
    return TinyCodec(network.eval().requires_grad_(False))
