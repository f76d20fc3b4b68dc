"""From a preset's name to a generator of single frames that is ready: files found, weights loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import ImageCodec, SdVae, SingleFrames, tiny_narrow
from inspatio_sim.codecs.sd_vae import sdxl_network
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.compiled import compile_blocks
from inspatio_sim.generators.blocks.loading import chosen_dtype, randomly_made
from inspatio_sim.generators.blocks.refusals import check_whole_tokens
from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from inspatio_sim.generators.frame.generator import FrameGenerator
from inspatio_sim.generators.frame.memory import MemoryRequest, check_fits
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FrameNetwork, FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.options import FrameOptions
from inspatio_sim.generators.presets.load import files_of, load_weights, tiny_codec
from inspatio_sim.generators.presets.registry import FramePreset, frame_preset
from inspatio_sim.latents import SPATIAL_STRIDE
from inspatio_sim.machine.devices import chosen_device
from inspatio_sim.progress import Progress


def load_frame(
    options: FrameOptions,
    *,
    size_px: tuple[int, int] | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> FrameGenerator:
    """Make a generator from its options; see `GeneratorKind.load`."""
    chosen = frame_preset(options.preset)
    torch_device = chosen_device(options.device)
    torch_dtype = chosen_dtype(options.dtype, torch_device)
    sampler_config = FrameSamplerConfig(steps=tuple(chosen.steps if options.steps is None else options.steps))
    if size_px is not None:
        check_whole_tokens(*size_px, SPATIAL_STRIDE * chosen.frame.patch_size)
        request = MemoryRequest(preset=chosen, size_px=size_px, batch=batch, dtype=torch_dtype)
        check_fits(request, torch_device)
    files = files_of(chosen, options.weights, random_weights=options.random_weights)
    codec = _codec(chosen, files, torch_dtype, torch_device)
    transformer = _transformer(chosen, files.get("transformer"), torch_dtype, torch_device, progress)
    generator = FrameGenerator(
        FrameSampler(_made_ready(transformer, compile=options.compile), sampler_config),
        codec,
        max_views=options.max_views,
        pastes_renders=chosen.pastes_renders if options.paste_renders is None else options.paste_renders,
        best_size_px=chosen.size_px,
        options={
            **asdict(options),
            "weights": str(options.weights) if options.weights is not None else None,
            "steps": list(sampler_config.steps),
        },
    )
    generator.progress = progress
    return generator


def _transformer(
    preset: FramePreset, path: Path | None, dtype: torch.dtype, device: torch.device, progress: Progress | None
) -> FrameTransformer:
    """The network with its weights; None: seeded random ones."""
    if path is None:
        return randomly_made(lambda: FrameTransformer(preset.frame), dtype, device)
    with torch.device("meta"):
        transformer = FrameTransformer(preset.frame)
    load_weights(transformer, path, dtype=dtype, device=device, progress=progress)
    return transformer


def _made_ready(transformer: FrameTransformer, *, compile: bool) -> FrameNetwork:
    """The fastest form of the network for its device."""
    transformer.forget_caption()
    if compile:
        compile_blocks(transformer.eval().requires_grad_(False), entry_points=("forward",))
        return transformer
    if transformer.device.type == "cpu":
        return CpuFrameTransformer(transformer, take_over=True)
    return transformer.eval().requires_grad_(False)


def _codec(preset: FramePreset, files: dict[Role, Path], dtype: torch.dtype, device: torch.device) -> ImageCodec:
    path = files.get("codec")
    if preset.codec_kind == "tiny":
        return SingleFrames(tiny_codec(tiny_narrow(), path, dtype, device), preset.latent_scale)
    if path is None:
        return SdVae(randomly_made(sdxl_network, dtype, device), preset.latent_scale)
    codec = SdVae.from_folder(path, dtype=dtype, device=device)
    if codec.latent_channels != preset.frame.in_channels or abs(codec.latent_scale / preset.latent_scale - 1) > 1e-3:
        raise InputError(
            f"{path}: {codec.latent_channels} latent channels, scaled by {codec.latent_scale}: want the autoencoder of "
            f"{preset.name}, with {preset.frame.in_channels}, scaled by {preset.latent_scale}"
        )
    return codec
