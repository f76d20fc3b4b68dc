"""One block of latents of a transformer with seeded random weights, from seeded random inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.generators.blocks.flop import flop_by_layers, flop_of
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, SamplerConfig
from inspatio_sim.latents import BLOCK_LATENTS, SPATIAL_STRIDE


def random_transformer(config: StarConfig, dtype: torch.dtype = torch.float32) -> StarTransformer:
    """The same weights every time, rounded to a precision; ready to generate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = StarTransformer(config)
    return transformer.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class BlockInputs:
    """What a block is made from. Shapes: B worlds, F latents, h w their size."""

    reference: Tensor  # [B, F, 16, h, w]
    history: Tensor  # [B, F, 16, h, w]
    condition: Tensor  # mask in {-1, 1}, then render. [B, F, 20, h, w]
    text: Tensor  # [B, L, text_dim]
    noise: Tensor  # of every step. [S, B, F, 16, h, w]

    @classmethod
    def random(
        cls,
        config: StarConfig,
        size_px: tuple[int, int],
        *,
        batch: int = 1,
        num_steps: int = 4,
        block_latents: int = BLOCK_LATENTS,
    ) -> BlockInputs:
        """Standard normal numbers, the same every time."""
        rng = torch.Generator().manual_seed(1)
        h, w = (edge // SPATIAL_STRIDE for edge in size_px)
        like_latents = (batch, block_latents, config.out_channels, h, w)
        condition = torch.randn(batch, block_latents, config.condition_channels, h, w, generator=rng)
        num_mask = config.condition_channels - config.out_channels
        condition[:, :, :num_mask] = condition[:, :, :num_mask].sign()
        return cls(
            reference=torch.randn(like_latents, generator=rng),
            history=torch.randn(like_latents, generator=rng),
            condition=condition,
            text=torch.randn(batch, config.text_len, config.text_dim, generator=rng),
            noise=torch.randn(num_steps, *like_latents, generator=rng),
        )

    def of_world(self, i: int) -> BlockInputs:
        """One world's share."""
        one = slice(i, i + 1)
        return BlockInputs(
            self.reference[one], self.history[one], self.condition[one], self.text[one], self.noise[:, one]
        )


def block_maker(sampler: BlockSampler, inputs: BlockInputs) -> Callable[[], Tensor]:
    """A call makes a later block: context pass over six latents, then all denoising steps. -> [B, F, 16, h, w]

    What is made once per prompt is made here.
    """
    with torch.inference_mode():
        text = sampler.transformer.text_keys(inputs.text)
    return lambda: sampler.sample(
        reference=inputs.reference,
        history=inputs.history,
        condition=inputs.condition,
        text=text,
        noise=lambda step: inputs.noise[step],
    )


def block_flop(config: StarConfig, size_px: tuple[int, int], sampling: SamplerConfig, **inputs: int) -> int:
    """Operations of a later block of all worlds; what is made once costs it nothing.

    Args:
        config: of the transformer.
        size_px: (height, width) of the frames.
        sampling: the steps.
        **inputs: further ones of `BlockInputs.random`.
    """

    def count(config: StarConfig) -> int:
        with torch.device("meta"):
            transformer = StarTransformer(config)
        given = BlockInputs.random(config, size_px, num_steps=len(sampling.steps), **inputs)
        on_meta = BlockInputs(**{name: tensor.to("meta") for name, tensor in vars(given).items()})
        make = block_maker(BlockSampler(transformer, sampling), on_meta)
        make()  # what is made once is made now
        return flop_of(make)

    return flop_by_layers(config, "num_layers", count)


def block(sampler: BlockSampler, inputs: BlockInputs) -> Tensor:
    """One later block. [B, F, 16, h, w]"""
    return block_maker(sampler, inputs)()
