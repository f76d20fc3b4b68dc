"""Autoencoders in diffusers' layout: a folder with config.json and safetensors beside it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from inspatio_sim.checkpoints.tensors import is_finite
from inspatio_sim.errors import CheckpointMismatch, InputError

# What diffusers, safetensors and torch raise on files that are damaged or something else.
UNREADABLE = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, SafetensorError,
    pickle.UnpicklingError,
)  # fmt: skip


def load_folder(network: Any, folder: Path, *, what: str, dtype: torch.dtype) -> Any:
    """A network of diffusers, with the weights of a folder. Nothing is downloaded, and no code in it runs.

    Args:
        network: its class.
        folder: with a config.json.
        what: what messages call it, such as "Wan autoencoder".
        dtype: of the weights.

    Raises:
        InputError: the folder holds no such network, or NaN or infinity.
        CheckpointMismatch: weights are missing or of another shape.
    """
    try:
        loaded, info = network.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, torch_dtype=dtype, output_loading_info=True
        )
    except UNREADABLE as error:
        raise InputError(f"{folder}: no {what} that diffusers can load: {first_line(error)}") from error
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise CheckpointMismatch(
            f"{folder}: {len(absent)} weights are missing or of another shape, such as {absent[0]}"
        )
    damaged = next((name for name, weight in loaded.state_dict().items() if not is_finite(weight)), None)
    if damaged:
        raise InputError(f"{folder}: {damaged} holds NaN or infinity: damaged weights")
    return loaded


def first_line(error: Exception) -> str:
    """Of an error's text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
