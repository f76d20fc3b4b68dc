"""Random weights that the frame transformer begins training with."""

from __future__ import annotations

import torch
from torch import nn

from inspatio_sim.generators.frame.model import FrameTransformer


@torch.no_grad()
def start_frame(network: FrameTransformer) -> None:
    """As PixArt-Sigma begins: Xavier for linear maps, small embeddings of the timestep, a velocity of zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    embedder = network.x_embedder.proj
    nn.init.xavier_uniform_(embedder.weight.flatten(1))
    assert embedder.bias is not None
    nn.init.zeros_(embedder.bias)
    for layer in (*network.t_embedder.mlp, *network.t_block):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(network.final_layer.linear.weight)
