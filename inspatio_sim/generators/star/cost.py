"""What a block costs: floating-point operations and bytes, counted from the sizes alone.

A multiply-add is two operations. Only matrix products and attention are counted; norms, rotary positions and
activations are under one percent of them. What is made once (text keys, timestep modulation, rotary tables)
costs a block nothing.

Letters: D width, E hidden width of the feed-forward, L text rows, N tokens of a pass, M tokens it attends to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.latents import BLOCK_LATENTS


@dataclass(frozen=True, kw_only=True)
class PassCost:
    """Operations of one or more passes."""

    linear_flop: int
    self_attention_flop: int
    cross_attention_flop: int

    @property
    def attention_flop(self) -> int:
        return self.self_attention_flop + self.cross_attention_flop

    @property
    def total_flop(self) -> int:
        return self.linear_flop + self.attention_flop

    def __mul__(self, times: int) -> PassCost:
        return PassCost(
            linear_flop=times * self.linear_flop,
            self_attention_flop=times * self.self_attention_flop,
            cross_attention_flop=times * self.cross_attention_flop,
        )


@dataclass(frozen=True, kw_only=True)
class BlockCost:
    """What one block of latents costs in all worlds together."""

    context: PassCost
    denoise: PassCost  # all steps
    context_tokens: int  # of one world
    block_tokens: int  # of one world
    weight_bytes: int  # the whole transformer
    cache_bytes: int  # the ST-cache of all worlds, with room for the block

    @property
    def linear_flop(self) -> int:
        return self.context.linear_flop + self.denoise.linear_flop

    @property
    def attention_flop(self) -> int:
        return self.context.attention_flop + self.denoise.attention_flop

    @property
    def total_flop(self) -> int:
        return self.linear_flop + self.attention_flop


def block_cost(
    config: StarConfig,
    *,
    grid: tuple[int, int],
    context_latents: int,
    block_latents: int = BLOCK_LATENTS,
    num_steps: int = len(DISTILLED_STEPS),
    batch: int = 1,
    dtype: torch.dtype = torch.bfloat16,
) -> BlockCost:
    """Count one block without guidance.

    Args:
        config: sizes of the transformer.
        grid: height and width in latents, both even.
        context_latents: latent frames of the context: 2 * block_latents, or block_latents in a first block
            (reference alone), or 0 in text-only mode, where there is no mask and render either.
        block_latents: latent frames of the block.
        num_steps: denoising passes.
        batch: worlds.
        dtype: of weights and cache.
    """
    height, width = grid
    if height < PATCH or width < PATCH or height % PATCH or width % PATCH:
        raise InputError(f"grid={grid}: want two even numbers of latents, such as (60, 104) for 480x832 pixels")
    for name, value, least in (
        ("context_latents", context_latents, 0),
        ("block_latents", block_latents, 1),
        ("num_steps", num_steps, 1),
        ("batch", batch, 1),
    ):
        if value < least:
            raise InputError(f"{name}={value}: want {least} or more")
    tokens_per_frame = (height // PATCH) * (width // PATCH)
    context_tokens, block_tokens = context_latents * tokens_per_frame, block_latents * tokens_per_frame
    denoise_channels = config.in_channels if context_latents else config.out_channels
    return BlockCost(
        context=_context_pass(config, context_tokens) * batch,
        denoise=_denoise_pass(config, block_tokens, context_tokens, denoise_channels) * (num_steps * batch),
        context_tokens=context_tokens,
        block_tokens=block_tokens,
        weight_bytes=num_parameters(config) * dtype.itemsize,
        cache_bytes=cache_elements(config, context_tokens + block_tokens) * batch * dtype.itemsize,
    )


def num_parameters(config: StarConfig) -> int:
    """Parameters of a `StarTransformer`."""
    dim = config.dim
    block = 8 * _linear(dim, dim) + _linear(dim, config.ffn_dim) + _linear(config.ffn_dim, dim)
    block += 6 * dim + 4 * dim + 2 * dim  # modulation, the norms of q and k, norm3
    return (
        _linear(patch_elements(config.in_channels), dim)
        + _linear(config.text_dim, dim)
        + _linear(dim, dim)
        + _linear(config.freq_dim, dim)
        + _linear(dim, dim)
        + _linear(dim, 6 * dim)
        + config.num_layers * block
        + 2 * dim
        + _linear(dim, patch_elements(config.out_channels))
    )


def cache_elements(config: StarConfig, num_tokens: int) -> int:
    """Elements of one world's ST-cache with room for so many tokens."""
    return 2 * config.num_layers * num_tokens * config.dim


def patch_elements(channels: int) -> int:
    """Elements of a patch: one token's share of so many channels."""
    return PATCH * PATCH * channels


def _context_pass(config: StarConfig, num_tokens: int) -> PassCost:
    """Nothing is left to do after the last layer's keys and values."""
    dim, full_layers = config.dim, config.num_layers - 1
    per_token = patch_elements(config.out_channels) * dim + full_layers * _block_products(config) + 2 * dim * dim
    return PassCost(
        linear_flop=2 * num_tokens * per_token,
        self_attention_flop=full_layers * _attention(num_tokens, num_tokens, dim),
        cross_attention_flop=full_layers * _attention(num_tokens, config.text_len, dim),
    )


def _denoise_pass(config: StarConfig, num_tokens: int, context_tokens: int, channels: int) -> PassCost:
    dim, layers = config.dim, config.num_layers
    ends = patch_elements(channels + config.out_channels) * dim  # patch embedding and head
    return PassCost(
        linear_flop=2 * num_tokens * (ends + layers * _block_products(config)),
        self_attention_flop=layers * _attention(num_tokens, context_tokens + num_tokens, dim),
        cross_attention_flop=layers * _attention(num_tokens, config.text_len, dim),
    )


def _block_products(config: StarConfig) -> int:
    """Multiply-adds of one token in one block's linear layers: q, k, v, o, cross q and o, feed-forward."""
    return 6 * config.dim**2 + 2 * config.dim * config.ffn_dim


def _attention(num_queries: int, num_keys: int, dim: int) -> int:
    """Operations of q k' and of its product with v, all heads."""
    return 2 * 2 * num_queries * num_keys * dim


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
