"""From a preset's name to a generator of single frames that is ready: files found, weights loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from inspatio_sim.checkpoints import FramePreset, frame_preset, load_weights
from inspatio_sim.cli.terminal import ProgressCallback
from inspatio_sim.codecs import ImageCodec, SdVae, SingleFrames, tiny_narrow
from inspatio_sim.codecs.sd_vae import sdxl_network
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.loading import (
    Precision,
    chosen_dtype,
    files_of,
    randomly_made,
    tiny_codec,
)
from inspatio_sim.generators.blocks.refusals import check_whole_tokens
from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from inspatio_sim.generators.frame.generator import FrameGenerator
from inspatio_sim.generators.frame.memory import MemoryRequest, check_fits
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FrameNetwork, FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.frame.view_memory import MAX_VIEWS
from inspatio_sim.generators.presets.registry import Role
from inspatio_sim.generators.presets.star_config import SPATIAL_STRIDE
from inspatio_sim.generators.star.compiled import compile_blocks
from inspatio_sim.machine.devices import chosen_device


def load_frame(
    *,
    preset: str = "frame-tiny",
    weights: str | Path | None = None,
    random_weights: bool = False,
    device: str = "auto",
    dtype: Precision = "auto",
    steps: Sequence[int] | None = None,
    compile: bool = False,
    paste_renders: bool | None = None,
    max_views: int = MAX_VIEWS,
    size_px: tuple[int, int] | None = None,
    batch: int = 1,
    progress: ProgressCallback | None = None,
) -> FrameGenerator:
    """Make a generator from a preset.

    Args:
        preset: a name of the registry (`inspatio-sim weights list`).
        weights: folder with the preset's files; None: that of INSPATIO_WEIGHTS, then the package's own.
        random_weights: seeded random numbers in place of trained weights, to try the machinery. Says so loudly.
        device: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.
        dtype: of weights and activations; auto is bfloat16 where the device multiplies it natively.
        steps: denoising steps, falling from 999, such as 999 200; None: the preset's.
        compile: let torch.compile make it faster; the first frames of a new size then take minutes.
        paste_renders: lay rendered pixels over generated ones; None: as the preset does.
        max_views: that a world remembers.
        size_px: (height, width) of the frames to come, if known: memory is checked before anything is loaded.
        batch: worlds to come at once.
        progress: told the share loaded, and later of other work that takes long.

    Raises:
        InputError: an argument cannot be, or files are missing (names each one and where it is published).
        CheckpointMismatch: weights are not those of the preset.
        NotEnoughMemory: it would not fit; names a setting that would.
    """
    chosen = frame_preset(preset)
    torch_device = chosen_device(device)
    torch_dtype = chosen_dtype(dtype, torch_device)
    sampler_config = _sampler_config(chosen, steps)
    if size_px is not None:
        check_whole_tokens(*size_px, SPATIAL_STRIDE * chosen.frame.patch_size)
        request = MemoryRequest(preset=chosen, size_px=size_px, batch=batch, dtype=torch_dtype)
        check_fits(request, torch_device)
    files = files_of(chosen, weights, random_weights=random_weights)
    codec = _codec(chosen, files, torch_dtype, torch_device)
    transformer = _transformer(chosen, files.get("transformer"), torch_dtype, torch_device, progress)
    generator = FrameGenerator(
        FrameSampler(_made_ready(transformer, compile=compile), sampler_config),
        codec,
        max_views=max_views,
        pastes_renders=chosen.pastes_renders if paste_renders is None else paste_renders,
        best_size_px=chosen.size_px,
        options={
            "preset": preset,
            "weights": str(weights) if weights is not None else None,
            "random_weights": random_weights,
            "device": device,
            "dtype": dtype,
            "steps": list(sampler_config.steps) if chosen.steps else None,
            "compile": compile,
            "paste_renders": paste_renders,
            "max_views": max_views,
        },
    )
    generator.progress = progress
    return generator


def _sampler_config(preset: FramePreset, steps: Sequence[int] | None) -> FrameSamplerConfig:
    if preset.solver == "dpm":
        if steps is not None:
            raise InputError(f"steps={list(steps)}: preset {preset.name} is sampled by DPM-Solver: want none")
        return FrameSamplerConfig(prediction=preset.prediction, solver=preset.solver)
    return FrameSamplerConfig(
        steps=tuple(preset.steps if steps is None else steps), prediction=preset.prediction, solver=preset.solver
    )


def _transformer(
    preset: FramePreset, path: Path | None, dtype: torch.dtype, device: torch.device, progress: ProgressCallback | None
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
