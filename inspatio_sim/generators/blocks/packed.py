"""Linear layers packed for a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
"""Of PyTorch's, and not public: without them nothing is packed."""


class PackedLinear:
    """Linear layers side by side, laid out once for oneDNN; optionally followed by tanh-GELU. [R, D] -> [R, E]"""

    def __init__(self, *linears: tuple[Tensor, Tensor], gelu: bool = False) -> None:
        weight, bias = (torch.cat(parts) for parts in zip(*linears, strict=True))
        self.is_packed = can_pack(weight.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.is_packed else weight
        self.bias = bias
        self.gelu = gelu

    def __call__(self, x: Tensor) -> Tensor:
        if self.is_packed:
            activation = ("gelu", [], "tanh") if self.gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y, approximate="tanh") if self.gelu else y


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and multiplies these numbers on this processor."""
    if not (torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
