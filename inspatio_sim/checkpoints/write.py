"""Safetensors files written tensor by tensor, so that a large model never has to be in memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[Shape, torch.dtype]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a file that appears whole or not at all.

    The same tensors and metadata give the same bytes. Format: safetensors (header length, JSON header, data).

    Args:
        path: replaced if it exists.
        tensors: shape and dtype (bfloat16, float16, float32) of each.
        read: gives each tensor once, on the CPU.
        metadata: notes for the header.

    Raises:
        InputError: it cannot be written, such as on a full disk.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name][1].itemsize, name))  # wide ones first: all are aligned
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        shape, dtype = tensors[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder: want a file name")
    with replacing(path) as temporary, writing_to(path), temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = read(name)
            assert (tuple(tensor.shape), tensor.dtype) == tensors[name], f"{name}: not as announced"
            stream.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
