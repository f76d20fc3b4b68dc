"""Networks small enough for tests; their random weights leave nothing out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FrameNetwork
from inspatio_sim.generators.presets.frame_config import FrameConfig

SMALL = FrameConfig(
    input_size=8,
    patch_size=2,
    in_channels=4,
    mask_channels=1,
    hidden_size=48,
    depth=2,
    num_heads=2,
    learns_sigma=False,
    has_caption=False,
)

MAKE_NETWORK: dict[str, Callable[[FrameTransformer], FrameNetwork]] = {"plain": lambda t: t, "cpu": CpuFrameTransformer}


def make_transformer(
    config: FrameConfig = SMALL, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> FrameTransformer:
    """Weights of size 1 / sqrt(inputs), and biases and modulations that matter."""
    transformer = FrameTransformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            is_small = weight.ndim == 1 or name.endswith("scale_shift_table")
            weight.copy_(0.2 * noise if is_small else noise / weight[0].numel() ** 0.5)
    return transformer.to(dtype).eval().requires_grad_(False)


def random_latents(
    grid: tuple[int, int] = (4, 6), *, batch: int = 1, channels: int = SMALL.in_channels, seed: int = 0
) -> Tensor:
    return torch.randn(batch, channels, *grid, generator=torch.Generator().manual_seed(seed))


def random_images(
    config: FrameConfig = SMALL, grid: tuple[int, int] = (4, 6), *, batch: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy, anchors, reference."""
    with_mask = config.in_channels + config.mask_channels
    return (
        random_latents(grid, batch=batch, channels=config.in_channels, seed=seed),
        random_latents(grid, batch=batch, channels=with_mask, seed=seed + 1),
        random_latents(grid, batch=batch, channels=with_mask, seed=seed + 2),
    )
