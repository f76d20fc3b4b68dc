"""What is known of a tensor before it is read, and which numbers are accepted as weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inspatio_sim.errors import InputError

Shape = tuple[int, ...]
DtypeName = Literal["bf16", "fp16", "fp32"]

FLOATS: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
"""Accepted weights. float64 and integers are no published weights; 8 bits and fewer need their scales."""

DTYPES: dict[DtypeName, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """A tensor's entry in the list of its file."""

    shape: Shape
    dtype: str  # as torch says it, without `torch.`; one of FLOATS if it can be weights

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def shapes_of(tensors: Mapping[str, TensorInfo]) -> dict[str, Shape]:
    """The shapes alone, by name."""
    return {name: info.shape for name, info in tensors.items()}


def check_floats(tensors: Mapping[str, TensorInfo], source: str) -> None:
    """Refuse tensors that are no bf16, fp16 or fp32."""
    for name, info in tensors.items():
        if info.dtype not in FLOATS:
            raise InputError(f"{source}: {shown(name)} is {info.dtype}: want {', '.join(FLOATS)}")


def is_finite(tensor: Tensor) -> bool:
    """Whether a float tensor holds no NaN and no infinity."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)  # NaN goes through both; no mask as large as the tensor
    return bool(torch.isfinite(low) & torch.isfinite(high))


def shown(name: str) -> str:
    """A name out of a file that nobody vouches for, fit for one line of a message."""
    line = name.encode("unicode_escape").decode("ascii")
    return line if len(line) <= 80 else f"{line[:77]}..."


def shape_text(shape: Shape) -> str:
    """Such as 1536x36x1x2x2."""
    return "x".join(str(size) for size in shape) or "a single number"
