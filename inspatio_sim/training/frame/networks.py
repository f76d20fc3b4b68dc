"""The networks of a frame run: with the weights of an earlier stage, of a file, or random ones to begin with."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch
from torch import nn

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec
from inspatio_sim.codecs.image import ImageCodec, SingleFrames
from inspatio_sim.codecs.sd_vae import SdVae
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.registry import preset_by_name
from inspatio_sim.training.engine.results import Result, network_from
from inspatio_sim.training.frame.configs import FrameRunConfig

CODEC_FILE = Path("tiny") / "tiny_codec.safetensors"  # among the shipped weights
SD_VAE_PRESET = "worldfm-2step"  # of the registry, whose image codec is meant


def frame_from(config: FrameRunConfig, result: Result) -> FrameTransformer:
    """A transformer that a stage left or that is in a file, or as training begins with."""

    def make() -> FrameTransformer:
        network = FrameTransformer(config.frame)
        start_frame(network)
        return network

    return network_from(make, result, seed=config.seed)


def image_codec(config: FrameRunConfig, device: torch.device) -> ImageCodec:
    """The frozen codec; the small one works on the CPU, beside the training."""
    if config.codec:
        return SingleFrames(TinyCodec(tiny_codec(config)), config.latent_scale)
    preset = preset_by_name(SD_VAE_PRESET)
    wanted = preset.wanted("codec")
    folder = find.find_file(preset, wanted, find.weights_folders())
    if folder is None:
        missing = find.missing_text(wanted, os.environ.get(find.ENVIRONMENT) or "weights")
        raise InputError(f"no image codec: {missing}; and name the folder in {find.ENVIRONMENT}")
    return SdVae.from_folder(folder, device=device)


def tiny_codec(config: FrameRunConfig) -> TinyAutoencoder:
    """The video codec whose single frames are the images, frozen: as shipped, or random if allowed."""
    assert config.codec is not None, "the published image codec is another"
    path = None if config.random_stand_ins else find.SHIPPED / CODEC_FILE
    if path and not path.is_file():
        raise InputError(f"{path}: no such file: run inspatio-sim train star/ship --config tiny first")
    shipped = Result(stage="codec", kind="shipped" if path else "random", path=path)
    codec = network_from(partial(TinyAutoencoder, config.codec), shipped, seed=config.seed)
    return codec.requires_grad_(False).eval()


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
