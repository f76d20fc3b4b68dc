"""Networks, codecs, clips and whole generators small enough for tests; their random weights leave nothing out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.codecs.tiny import TinyCodec
from inspatio_sim.codecs.tiny_network import TimeAlignment, TinyAutoencoder, TinyConfig
from inspatio_sim.condition.condition import Condition
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.cpu import CpuTransformer
from inspatio_sim.generators.star.generator import StarGenerator, StarState, identity_of
from inspatio_sim.generators.star.model import BLOCK_SLOT, StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, FlowNetwork, SamplerConfig
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.text import HashedWords

SMALL = StarConfig(dim=48, ffn_dim=80, num_heads=2, num_layers=2, text_dim=16, text_len=4, freq_dim=16)

MAKE_NETWORK: dict[str, Callable[[StarTransformer], FlowNetwork]] = {"plain": lambda t: t, "cpu": CpuTransformer}


def randomise(module: nn.Module, seed: int, scale: float = 1.0) -> None:
    """Weights of size 1 / sqrt(inputs), and biases, norms and modulations that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1 and "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.2 * noise)
            elif weight.ndim == 1 or name.endswith("modulation"):
                weight.copy_(0.2 * noise)
            else:
                weight.copy_(scale * noise / weight[0].numel() ** 0.5)


def make_transformer(config: StarConfig = SMALL, *, seed: int = 0, dtype: torch.dtype = torch.float32):
    transformer = StarTransformer(config)
    randomise(transformer, seed)
    return transformer.to(dtype).eval().requires_grad_(False)


def make_codec(
    time_alignment: TimeAlignment = "causal", *, seed: int = 1, dtype: torch.dtype = torch.float32
) -> TinyCodec:
    network = TinyAutoencoder(TinyConfig(encoder_width=4, decoder_widths=(8, 4, 4, 4), time_alignment=time_alignment))
    randomise(network, seed, scale=1.4)
    *_, weight, bias = network.decoder.parameters()
    with torch.no_grad():
        weight.mul_(0.05)  # of the last layer: frames are grey, not black and white
        bias.fill_(0.5)
    return TinyCodec(network.to(dtype).eval().requires_grad_(False))


def make_generator(
    network: str = "plain",
    *,
    block_latents: int = 3,
    low_memory: bool = False,
    pastes_renders: bool = False,
    time_alignment: TimeAlignment = "causal",
    dtype: torch.dtype = torch.float32,
    sampler_config: SamplerConfig | None = None,
    transformer: FlowNetwork | None = None,
    codec: TinyCodec | None = None,
) -> StarGenerator:
    codec = codec or make_codec(time_alignment, dtype=dtype)
    return StarGenerator(
        BlockSampler(transformer or MAKE_NETWORK[network](make_transformer(dtype=dtype)), sampler_config),
        codec,
        HashedWords(text_dim=SMALL.text_dim, text_len=SMALL.text_len),
        codec_identity=identity_of(*codec.network.state_dict().values()) + time_alignment,
        block_latents=block_latents,
        low_memory=low_memory,
        pastes_renders=pastes_renders,
    )


def make_reference(num_frames: int = 14, size_px: tuple[int, int] = (32, 48)) -> Reference:
    clip = demo_clip(num_frames=num_frames, size_px=size_px, camera="moving", supersample=1)
    return reconstruct(clip, method="rgbd")


def condition_of(frame_idx: Sequence[int], size_px: tuple[int, int] = (32, 48), seed: int = 0) -> Condition:
    """Random renders with holes, for the given frames of the reference."""
    random = np.random.default_rng(seed)
    shape = (len(frame_idx), *size_px)
    is_rendered = random.random(shape) < 0.7
    render_u8 = random.integers(0, 256, (*shape, 3), np.uint8) * is_rendered[..., None]
    return Condition(
        render_u8=render_u8.astype(np.uint8),
        depth_m=is_rendered.astype(np.float32),
        is_rendered=is_rendered,
        known=np.where(is_rendered, np.uint8(2), np.uint8(0)),
        T_world_camera=np.repeat(np.eye(4)[None], len(frame_idx), 0),
        reference_frame_idx=np.array(frame_idx, np.int64),
    )


def run_alone(
    generator: StarGenerator, state: StarState, conditions: Sequence[Condition]
) -> tuple[list[np.ndarray], StarState]:
    """Blocks of one world, one after the other."""
    blocks = []
    for condition in conditions:
        generation = generator.generate([condition], [state])
        blocks.append(generation.frames_u8[0])
        state = generation.states[0]
    return blocks, state


def random_latents(
    num_frames: int, grid: tuple[int, int] = (4, 6), *, batch: int = 1, channels: int = 16, seed: int = 0
):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, num_frames, channels, *grid, generator=generator)


def random_text(num_rows: int = SMALL.text_len, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, num_rows, SMALL.text_dim, generator=torch.Generator().manual_seed(seed))


def make_cache(network: FlowNetwork, x: Tensor, max_context_frames: int | None = None) -> STCache:
    """A cache for blocks like `x`. [B, F, C, h, w]"""
    batch, num_frames, _, h, w = x.shape
    frame_tokens = (h // PATCH) * (w // PATCH)
    return STCache(
        network.config,
        batch=batch,
        max_context_tokens=frame_tokens * (2 * num_frames if max_context_frames is None else max_context_frames),
        block_tokens=frame_tokens * num_frames,
        dtype=network.dtype,
    )


@torch.inference_mode()
def two_calls(
    network: FlowNetwork, context: Tensor | None, noisy: Tensor, text: Tensor, timestep: float = 750.0
) -> Tensor:
    """Context pass, then one denoising pass. [B, F, 16 or 36, h, w] -> [B, F, 16, h, w]"""
    h, w = noisy.shape[-2:]
    cache = make_cache(network, noisy, 0 if context is None else context.shape[1])
    keys = network.text_keys(text)
    if context is not None:
        rotary = network.rotary(torch.arange(context.shape[1]), h, w)
        network.write_context(context, network.time_modulation(torch.zeros(1)), keys, rotary, cache)
    rotary = network.rotary(BLOCK_SLOT + torch.arange(noisy.shape[1]), h, w)
    return network.denoise(noisy, network.time_modulation(torch.tensor([timestep])), keys, rotary, cache)
