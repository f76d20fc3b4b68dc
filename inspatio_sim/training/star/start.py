"""Random weights that networks begin training with: every layer keeps the size of what goes through it."""

from __future__ import annotations

import torch
from torch import nn

from inspatio_sim.codecs.tiny_network import GrowTime, MemoryBlock, PoolTime, TinyAutoencoder
from inspatio_sim.generators.star.model import StarTransformer

RESIDUAL_GAIN = 0.3  # of what a memory block adds to its input


@torch.no_grad()
def start_codec(network: TinyAutoencoder) -> None:
    """He initialisation. PyTorch's own shrinks what goes through each layer, and such a codec hardly learns."""
    for layer in (*network.encoder, *network.decoder):
        if isinstance(layer, MemoryBlock):
            convolutions = [part for part in layer.conv if isinstance(part, nn.Conv2d)]
            for part in convolutions:
                _he(part, "relu")
            convolutions[-1].weight.mul_(RESIDUAL_GAIN)
        elif isinstance(layer, PoolTime | GrowTime):
            _he(layer.conv, "linear")
        elif isinstance(layer, nn.Conv2d):
            _he(layer, "relu")


@torch.no_grad()
def start_transformer(network: StarTransformer) -> None:
    """As Wan2.1 begins: Xavier for linear maps, small embeddings, a flow of zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(network.patch_embedding.weight.flatten(1))
    assert network.patch_embedding.bias is not None
    nn.init.zeros_(network.patch_embedding.bias)
    for embedding in (network.text_embedding, network.time_embedding):
        for layer in embedding:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(network.head.head.weight)


def _he(convolution: nn.Conv2d, nonlinearity: str) -> None:
    nn.init.kaiming_normal_(convolution.weight, nonlinearity=nonlinearity)  # pyright: ignore[reportArgumentType]
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
