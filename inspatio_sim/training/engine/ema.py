"""Exponential moving average of a module's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from inspatio_sim.training.engine.distributed import fill, local

_HALVES = (torch.bfloat16, torch.float16)  # too coarse to add up small differences: averaged in float32


class Ema:
    """average <- decay average + (1 - decay) weights, one update at a time; before the start it follows the weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._average_into = get_ema_multi_avg_fn(decay)
        self.tensors: dict[str, Tensor] = {}
        """The averages, by their names in the module's state dict; split over ranks as the weights are."""
        for name, tensor in module.state_dict().items():
            kept = tensor.to(torch.float32) if tensor.dtype in _HALVES else tensor
            self.tensors[name] = kept.detach().clone()

    def update(self, *, has_started: bool) -> None:
        """Take in the weights as they are now; what is no float (a counter) is copied."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, tensor in self._module.state_dict().items():
            average = local(self.tensors[name])
            weight = local(tensor).detach().to(average.dtype)
            if has_started and average.is_floating_point():
                averages.append(average)
                weights.append(weight)
            else:
                average.copy_(weight)
        if averages:
            self._average_into(averages, weights, 0)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over averages that were saved, whole, under the same names."""
        for name, tensor in self.tensors.items():
            fill(tensor, tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module computes with the averages; afterwards its own weights are back, bit for bit."""
        weights = {name: local(tensor) for name, tensor in self._module.state_dict().items()}
        kept = {name: tensor.detach().clone() for name, tensor in weights.items()}
        try:
            _copy({name: local(tensor) for name, tensor in self.tensors.items()}, weights)
            yield
        finally:
            _copy(kept, weights)


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])
