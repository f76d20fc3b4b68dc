"""Which device networks run on."""

from __future__ import annotations

import torch

from inspatio_sim.errors import InputError


def chosen_device(name: str) -> torch.device:
    """A device by its name; `auto`: a GPU where there is one.

    Raises:
        InputError: there is no such device here, or it is lost to this process by a fork.
    """
    try:
        device = torch.device(_best() if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"device={name!r}: want cpu, cuda, cuda:1, ... or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device={name!r}: want cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device={name!r}: this machine has {torch.cuda.device_count()} CUDA devices: want cpu or auto"
        )
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise InputError(
            f"device={name!r}: this process was forked from one that has used the GPU, and CUDA does not survive a "
            "fork: start workers with 'spawn' (AsyncVectorEnv's context, SubprocVecEnv's start_method), "
            "or want device='cpu'"
        )
    return device


def _best() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
