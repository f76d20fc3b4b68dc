"""From a preset's name to a generator that is ready: files found, memory checked, weights loaded."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import torch

from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import TinyCodec, WanCodec
from inspatio_sim.codecs.memory import TinyCodecMemory, WanCodecMemory
from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.compiled import compile_blocks
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS
from inspatio_sim.generators.blocks.loading import chosen_dtype, randomly_made
from inspatio_sim.generators.options import CodecName, StarOptions
from inspatio_sim.generators.presets.find import missing_text
from inspatio_sim.generators.presets.load import files_of, load_weights, tiny_codec
from inspatio_sim.generators.presets.registry import StarPreset, star_preset
from inspatio_sim.generators.star.compiled import ENTRY_POINTS, GraphedTransformer, fuse_projections
from inspatio_sim.generators.star.cpu import CpuTransformer
from inspatio_sim.generators.star.fp8 import quantize_linears
from inspatio_sim.generators.star.generator import StarGenerator, check_size, identity_of
from inspatio_sim.generators.star.memory import MemoryRequest, check_fits
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, FlowNetwork, SamplerConfig
from inspatio_sim.machine.devices import chosen_device
from inspatio_sim.progress import Progress
from inspatio_sim.text import CachedText, HashedWords, NullText, TextEncoder, Umt5

log = logging.getLogger(__name__)


def load_star(
    options: StarOptions,
    *,
    size_px: tuple[int, int] | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> StarGenerator:
    """Make a generator from its options; see `GeneratorKind.load`."""
    chosen = star_preset(options.preset)
    torch_device = chosen_device(options.device)
    torch_dtype = chosen_dtype(options.dtype, torch_device)
    codec_kind = "tiny" if options.codec == "auto" else options.codec
    if codec_kind not in get_args(CodecName):
        raise InputError(f"codec={options.codec!r}: want one of {', '.join(get_args(CodecName))}")
    sampler_config = SamplerConfig(
        steps=tuple(options.steps or DISTILLED_STEPS),
        noise_scale=chosen.noise_scale if options.noise_scale is None else options.noise_scale,
    )
    memory_plan = {}
    if size_px is not None:
        check_size(*size_px)
        request = MemoryRequest(
            config=chosen.star,
            height_px=size_px[0],
            width_px=size_px[1],
            batch=batch,
            dtype=torch_dtype,
            codec=WanCodecMemory() if codec_kind == "wan" else TinyCodecMemory(chosen.codec),
            low_memory=options.low_memory,
            fp8=options.fp8,
            block_latents=options.block_latents,
        )
        memory_plan = check_fits(request, torch_device)
    files = _files(chosen, options.weights, codec_kind, random_weights=options.random_weights)
    transformer = _transformer(chosen, files.get("transformer"), torch_dtype, torch_device, progress)
    network = _made_ready(transformer, compile=options.compile, cuda_graphs=options.cuda_graphs, fp8=options.fp8)
    made_codec, codec_identity = _codec(chosen, codec_kind, files, torch_dtype, torch_device)
    if options.compile and isinstance(made_codec, TinyCodec):
        made_codec.compile()
    generator = StarGenerator(
        BlockSampler(network, sampler_config),
        made_codec,
        _text_encoder(chosen, files),
        codec_identity=codec_identity,
        block_latents=options.block_latents,
        low_memory=options.low_memory,
        pastes_renders=chosen.pastes_renders if options.paste_renders is None else options.paste_renders,
        best_size_px=chosen.size_px,
        options={
            **asdict(options),
            "weights": str(options.weights) if options.weights is not None else None,
            "steps": list(sampler_config.steps),
            "noise_scale": sampler_config.noise_scale,
        },
    )
    generator.progress, generator.memory_plan = progress, memory_plan
    return generator


def _files(preset: StarPreset, folder: str | Path | None, codec_kind: str, *, random_weights: bool) -> dict[Role, Path]:
    files = files_of(preset, folder, random_weights=random_weights)
    if codec_kind == "wan" and not random_weights and "wan_codec" not in files:
        wanted = next((file for file in preset.files if file.role == "wan_codec"), None)
        where = missing_text(wanted, folder or "weights") if wanted else f"{preset.name} was trained with its own codec"
        raise InputError(f"codec='wan': {where}")
    return files


def _transformer(
    preset: StarPreset, path: Path | None, dtype: torch.dtype, device: torch.device, progress: Progress | None
) -> StarTransformer:
    """The network with its weights; None: seeded random ones."""
    if path is None:
        return randomly_made(lambda: StarTransformer(preset.star), dtype, device)
    with torch.device("meta"):
        transformer = StarTransformer(preset.star)
    load_weights(transformer, path, dtype=dtype, device=device, widen=preset.is_base, progress=progress)
    return transformer


def _made_ready(transformer: StarTransformer, *, compile: bool, cuda_graphs: bool, fp8: bool) -> FlowNetwork:
    """The fastest form of the network for its device."""
    is_cuda = transformer.device.type == "cuda"
    if cuda_graphs and not is_cuda:
        raise InputError(f"cuda_graphs: the device is {transformer.device}: want cuda")
    if not is_cuda and not compile and not fp8:
        return CpuTransformer(transformer, take_over=True)
    if fp8:
        report = quantize_linears(transformer)
        log.warning("%s", report)  # an error that was asked for, and should be known
    else:
        fuse_projections(transformer)
    if compile:
        compile_blocks(transformer.eval().requires_grad_(False), ENTRY_POINTS)
    return GraphedTransformer(transformer) if cuda_graphs else transformer


def _codec(
    preset: StarPreset, kind: str, files: dict[Role, Path], dtype: torch.dtype, device: torch.device
) -> tuple[Codec, str]:
    """The codec, and what tells its latents from those of others."""
    if kind == "wan":
        if not files:
            raise InputError("codec='wan': random weights come with the codec tiny: want codec='tiny' or 'auto'")
        codec = WanCodec.from_single_file(files["wan_codec"], dtype=dtype, device=device)
        return codec, identity_of(*codec.vae.state_dict().values())
    codec = tiny_codec(preset.codec, files.get("codec"), dtype, device)
    return codec, identity_of(*codec.network.state_dict().values())


def _text_encoder(preset: StarPreset, files: dict[Role, Path]) -> TextEncoder:
    star = preset.star
    if preset.text_kind == "hashed":
        return HashedWords(text_dim=star.text_dim, text_len=star.text_len)
    folder = files.get("text_encoder")
    if folder is None:
        wanted = missing_text(preset.wanted("text_encoder"), "weights")
        return NullText(text_dim=star.text_dim, text_len=star.text_len, wanted=wanted)
    return CachedText(Umt5(folder))
