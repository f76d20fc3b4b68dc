"""What a stage costs: parameters, memory, floating-point operations.

Operations are counted while networks run on the meta device; a backward pass is twice a forward one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from inspatio_sim.generators.blocks.flop import flop_of

FLOAT_BYTES = 4
ADAM_FLOATS = 2  # a weight


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a stage."""

    name: str
    num_parameters: int
    is_trained: bool
    is_averaged: bool = False

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Weights, and what training keeps beside them."""
        size = FLOAT_BYTES * self.num_parameters
        return {
            "weights": size,
            "gradients": size * self.is_trained,
            "optimiser": ADAM_FLOATS * size * self.is_trained,
            "averages": size * self.is_averaged,
        }


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Of one stage; what a rank computes at a time is `batch_size` samples."""

    networks: tuple[Network, ...]
    activation_bytes: int  # kept for a backward pass, roughly
    flop_per_sample: float  # of a step, the mean over steps


def counted_cost(name: str, network: nn.Module, run: Callable[[], torch.Tensor], batch_size: int) -> StageCost:
    """Of a stage that trains one network, counted by running it forth and back on one sample.

    Args:
        name: of the network.
        network: on the meta device.
        run: a forward pass of one sample.
        batch_size: samples at a time.
    """
    kept: dict[int, int] = {}  # bytes, by storage

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    def forth_and_back() -> None:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            run().sum().backward()

    flop = flop_of(forth_and_back)
    size = sum(parameter.numel() for parameter in network.parameters())
    return StageCost(
        networks=(Network(name=name, num_parameters=size, is_trained=True, is_averaged=True),),
        activation_bytes=batch_size * sum(kept.values()),
        flop_per_sample=flop,
    )


def activation_bytes(
    num_tokens: int, num_layers: int, dim: int, hidden: int, *, dtype: str, is_recomputed: bool
) -> int:
    """What a backward pass through a transformer needs, of one sample: what each block keeps, roughly.

    Args:
        num_tokens: that go through it.
        num_layers: its blocks.
        dim: its width.
        hidden: of the feed-forward.
        dtype: of activations.
        is_recomputed: blocks keep their input only, and run again.
    """
    block = (16 * dim + 2 * hidden) * (2 if dtype == "bfloat16" else FLOAT_BYTES) * num_tokens
    if is_recomputed:
        return num_layers * dim * FLOAT_BYTES * num_tokens + block
    return num_layers * block
