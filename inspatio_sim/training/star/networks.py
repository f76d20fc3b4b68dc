"""The networks of a run: with the weights of an earlier stage, of a file, or random ones to begin training with.

Random weights are such that every layer keeps the size of what goes through it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.codecs.tiny_network import GrowTime, MemoryBlock, PoolTime, TinyAutoencoder
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.engine.results import Result, network_from
from inspatio_sim.training.star.configs import RunConfig

RESIDUAL_GAIN = 0.3  # of what a memory block adds to its input


def codec_from(config: RunConfig, result: Result) -> TinyAutoencoder:
    """The trained codec, frozen."""
    codec = network_from(partial(TinyAutoencoder, config.codec), result, seed=config.seed)
    return codec.requires_grad_(False).eval()


def new_codec(config: RunConfig, start: Path | None) -> TinyAutoencoder:
    """A codec to train: from a file, or random."""

    def make() -> TinyAutoencoder:
        network = TinyAutoencoder(config.codec)
        start_codec(network)
        return network

    begins = Result(stage="codec", kind="run" if start else "random", path=start)
    return network_from(make, begins, seed=config.seed)


def transformer_from(config: RunConfig, result: Result) -> StarTransformer:
    """The transformer that a stage left, or that is in a file."""
    return _transformer(partial(StarTransformer, config.star), config, result)


def new_teacher(config: RunConfig, stage: str, start: Path | None) -> StarTransformer:
    """A teacher to train: from a file, the published model that the config names, or random."""

    def make() -> StarTransformer:
        network = StarTransformer(config.star)
        start_transformer(network)
        return network

    path = start
    if path is None and config.preset:
        path = find.find_weights(star_preset(config.preset))["transformer"]
    return _transformer(make, config, Result(stage=stage, kind="run" if path else "random", path=path))


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


def _transformer(make: Callable[[], StarTransformer], config: RunConfig, result: Result) -> StarTransformer:
    """A text-to-video model, without channels for mask and render, is widened."""
    is_base = False
    if result.path is not None:
        with open_checkpoint(result.path) as checkpoint:
            embeddings = [info for name, info in checkpoint.tensors.items() if name.endswith("patch_embedding.weight")]
        is_base = any(info.shape[1] == config.star.out_channels for info in embeddings)
    return network_from(make, result, seed=config.seed, is_widened=is_base)
