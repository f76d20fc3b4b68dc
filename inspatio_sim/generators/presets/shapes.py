"""Names and shapes of a transformer's tensors, from the module itself on the meta device, where it takes no memory."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer


@cache
def network_of(config: StarConfig | FrameConfig) -> nn.Module:
    """A transformer without numbers; to be looked at, not changed."""
    with torch.device("meta"):
        return StarTransformer(config) if isinstance(config, StarConfig) else FrameTransformer(config)


@cache
def num_parameters(config: StarConfig | FrameConfig) -> int:
    """Weights of a transformer, tables not counted."""
    return sum(parameter.numel() for parameter in network_of(config).parameters())


def expected_shapes(config: StarConfig | FrameConfig) -> dict[str, Shape]:
    """Every tensor that a file of such a transformer holds, under its published name."""
    return {name: tuple(tensor.shape) for name, tensor in network_of(config).state_dict().items()}
