"""From a preset's name to a generator that is ready: files found, memory checked, weights loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from inspatio_sim.checkpoints import StarPreset, load_weights, star_preset
from inspatio_sim.cli.terminal import ProgressCallback
from inspatio_sim.codecs import TinyCodec, TinyConfig, WanCodec, taew2_1, tiny_narrow
from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.loading import (
    Precision,
    chosen_dtype,
    files_of,
    randomly_made,
    tiny_codec,
)
from inspatio_sim.generators.presets.find import missing_text
from inspatio_sim.generators.presets.registry import Role
from inspatio_sim.generators.star.compiled import GraphedTransformer, compile_blocks, fuse_projections
from inspatio_sim.generators.star.cpu import CpuTransformer
from inspatio_sim.generators.star.fp8 import quantize_linears
from inspatio_sim.generators.star.generator import MAX_BLOCK_LATENTS, StarGenerator, check_size, identity_of
from inspatio_sim.generators.star.memory import TinyCodecMemory, WanCodecMemory, check_fits
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, FlowNetwork, SamplerConfig
from inspatio_sim.machine.devices import chosen_device
from inspatio_sim.text import CachedText, HashedWords, NullText, TextEncoder, Umt5

log = logging.getLogger(__name__)

CodecName = Literal["auto", "tiny", "wan"]


def load_star(
    *,
    preset: str = "tiny",
    weights: str | Path | None = None,
    random_weights: bool = False,
    device: str = "auto",
    dtype: Precision = "auto",
    codec: CodecName = "auto",
    steps: Sequence[int] | None = None,
    noise_scale: float | None = None,
    block_latents: int = MAX_BLOCK_LATENTS,
    compile: bool = False,
    cuda_graphs: bool = False,
    fp8: bool = False,
    low_memory: bool = False,
    paste_renders: bool | None = None,
    size_px: tuple[int, int] | None = None,
    batch: int = 1,
    progress: ProgressCallback | None = None,
) -> StarGenerator:
    """Make a generator from a preset.

    Args:
        preset: a name of the registry (`inspatio-sim weights list`).
        weights: folder with the preset's files; None: that of INSPATIO_WEIGHTS, then the package's own.
        random_weights: seeded random numbers in place of trained weights, to try the machinery. Says so loudly.
        device: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.
        dtype: of weights and activations; auto is bfloat16 where the device multiplies it natively.
        codec: tiny (TAEHV), wan (slower, sharper), or auto: the preset's.
        steps: nominal denoising steps, falling from 1000, such as 1000 750 500 250; None: the preset's.
        noise_scale: of the noise that frames are made from: less is calmer; None: the preset's.
        block_latents: 3 (9 frames first, 12 after) down to 1 for low latency (1, then 4).
        compile: let torch.compile make it faster; the first blocks of a new size then take minutes.
        cuda_graphs: record every pass once and replay it, on a GPU.
        fp8: 8-bit products, on GPUs from compute capability 8.9.
        low_memory: encode and decode one latent at a time.
        paste_renders: lay rendered pixels over generated ones, gradually at their edges; None: as the preset does.
        size_px: (height, width) of the frames to come, if known: memory is checked before anything is loaded.
        batch: worlds to come at once.
        progress: told the share loaded, and later of other work that takes long.

    Raises:
        InputError: an argument cannot be, or files are missing (names each one and where it is published).
        CheckpointMismatch: weights are not those of the preset.
        NotEnoughMemory: it would not fit; names a setting that would.
    """
    chosen = star_preset(preset)
    torch_device = chosen_device(device)
    torch_dtype = chosen_dtype(dtype, torch_device)
    codec_kind = chosen.codec_kind if codec == "auto" else codec
    if codec_kind not in get_args(CodecName):
        raise InputError(f"codec={codec!r}: want one of {', '.join(get_args(CodecName))}")
    sampler_config = SamplerConfig(
        steps=tuple(steps or chosen.steps),
        shift=chosen.shift,
        noise_scale=chosen.noise_scale if noise_scale is None else noise_scale,
    )
    memory_plan = None
    if size_px is not None:
        check_size(*size_px)
        memory_plan = check_fits(
            chosen.star,
            height_px=size_px[0],
            width_px=size_px[1],
            batch=batch,
            dtype=torch_dtype,
            device=torch_device,
            codec=WanCodecMemory() if codec_kind == "wan" else TinyCodecMemory(_tiny_config(chosen)),
            low_memory=low_memory,
            fp8=fp8,
            block_latents=block_latents,
        )
    files = _files(chosen, weights, codec_kind, random_weights=random_weights)
    transformer = _transformer(chosen, files.get("transformer"), torch_dtype, torch_device, progress)
    network = _made_ready(transformer, compile=compile, cuda_graphs=cuda_graphs, fp8=fp8)
    made_codec, codec_identity = _codec(chosen, codec_kind, files, torch_dtype, torch_device)
    if compile and isinstance(made_codec, TinyCodec):
        made_codec.compile()
    generator = StarGenerator(
        BlockSampler(network, sampler_config),
        made_codec,
        _text_encoder(chosen, files),
        codec_identity=codec_identity,
        block_latents=block_latents,
        low_memory=low_memory,
        pastes_renders=chosen.pastes_renders if paste_renders is None else paste_renders,
        best_size_px=chosen.size_px,
        options={
            "preset": preset,
            "weights": str(weights) if weights is not None else None,
            "random_weights": random_weights,
            "device": device,
            "dtype": dtype,
            "codec": codec,
            "steps": list(sampler_config.steps),
            "noise_scale": sampler_config.noise_scale,
            "block_latents": block_latents,
            "compile": compile,
            "cuda_graphs": cuda_graphs,
            "fp8": fp8,
            "low_memory": low_memory,
            "paste_renders": paste_renders,
        },
    )
    generator.progress, generator.memory_plan = progress, memory_plan
    return generator


def _files(preset: StarPreset, folder: str | Path | None, codec_kind: str, *, random_weights: bool) -> dict[Role, Path]:
    files = files_of(preset, folder, random_weights=random_weights)
    if codec_kind == "wan" and not random_weights and "wan_codec" not in files:
        wanted = preset.wanted("wan_codec") if preset.name != "tiny" else None
        where = missing_text(wanted, folder or "weights") if wanted else "tiny was trained with its own codec"
        raise InputError(f"codec='wan': {where}")
    return files


def _transformer(
    preset: StarPreset, path: Path | None, dtype: torch.dtype, device: torch.device, progress: ProgressCallback | None
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
        compile_blocks(transformer.eval().requires_grad_(False))
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
    codec = tiny_codec(_tiny_config(preset), files.get("codec"), dtype, device)
    return codec, identity_of(*codec.network.state_dict().values())


def _tiny_config(preset: StarPreset) -> TinyConfig:
    return tiny_narrow() if preset.codec_config == "narrow" else taew2_1()


def _text_encoder(preset: StarPreset, files: dict[Role, Path]) -> TextEncoder:
    star = preset.star
    if preset.text_kind == "hashed":
        return HashedWords(text_dim=star.text_dim, text_len=star.text_len)
    folder = files.get("text_encoder")
    if folder is None:
        wanted = missing_text(preset.wanted("text_encoder"), "weights")
        return NullText(text_dim=star.text_dim, text_len=star.text_len, wanted=wanted)
    return CachedText(Umt5(folder))
