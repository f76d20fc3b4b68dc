"""What the narrow codec of `tiny` learns: frames that look the same after latents, and latents a model can learn.

Frames are [B, T, H, W, 3] in [0, 1], latents [B, n, h, w, C], as in `TinyAutoencoder`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.codecs.tiny_network import FRAMES_PER_LATENT, TinyAutoencoder
from inspatio_sim.errors import InputError

SSIM_WINDOW_PX = 7
SSIM_SCALES = 3  # of the picture, of half its size, of a quarter
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for values in [0, 1]


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig:
    """Weights of the parts of the loss."""

    l1: float = 1.0
    ssim: float = 0.5
    motion: float = 0.5  # L1 of the change from frame to frame: no flicker
    latent: float = 0.01  # latents of mean 0 and variance 1, channel by channel
    latent_noise: float = 0.05  # standard deviation of noise between encoder and decoder: what a sampler leaves

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise InputError(f"{name}={value}: want 0 or more")


@dataclass(frozen=True, kw_only=True)
class CodecLoss:
    """The parts, and the sum to minimise. Each []"""

    total: Tensor
    l1: Tensor
    ssim: Tensor  # 1 - SSIM
    motion: Tensor
    latent: Tensor


def reconstruct(network: TinyAutoencoder, frames: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encode and decode whole clips as causal streams, with gradients.

    Args:
        network: the codec.
        frames: 4n - 3 of them. [B, T, H, W, 3]
        noise: added to the latents. [B, n, h, w, C]

    Returns:
        Frames [B, T, H, W, 3], not clamped, and latents [B, n, h, w, C] without the noise.
    """
    if (frames.shape[1] - 1) % FRAMES_PER_LATENT:
        raise InputError(f"{frames.shape[1]} frames: want 4n - 3")
    first = frames[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1, -1)
    latents, _ = network.encode(torch.cat([first, frames], dim=1))
    decoded, _ = network.decode(latents if noise is None else latents + noise)
    return decoded[:, FRAMES_PER_LATENT - 1 :], latents


def codec_loss(decoded: Tensor, frames: Tensor, latents: Tensor, config: CodecLossConfig) -> CodecLoss:
    """How far a reconstruction is off, and how far its latents are from unit size."""
    l1 = (decoded - frames).abs().mean()
    pictures, wanted = (x.flatten(0, 1).movedim(-1, 1) for x in (decoded, frames))  # [B T, 3, H, W]
    unlike = 1 - multiscale_ssim(pictures, wanted)
    motion = (decoded.diff(dim=1) - frames.diff(dim=1)).abs().mean() if frames.shape[1] > 1 else l1.new_zeros(())
    mean, variance = latents.flatten(0, -2).mean(0), latents.flatten(0, -2).var(0)
    latent = (mean.square() + (variance - 1).square()).mean()
    total = config.l1 * l1 + config.ssim * unlike + config.motion * motion + config.latent * latent
    return CodecLoss(total=total, l1=l1, ssim=unlike, motion=motion, latent=latent)


def multiscale_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity over the picture and its halved copies. [N, C, H, W] twice -> []"""
    scales = []
    for scale in range(SSIM_SCALES):
        if min(a.shape[-2:]) < SSIM_WINDOW_PX:
            break
        scales.append(ssim(a, b))
        if scale < SSIM_SCALES - 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    if not scales:
        raise InputError(f"pictures of {a.shape[-2]}x{a.shape[-1]} px: want at least {SSIM_WINDOW_PX} each way")
    return torch.stack(scales).mean()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of pictures in [0, 1], in windows of 7x7 pixels. [N, C, H, W] twice -> []

    Source: Wang et al. 2004; the uniform window and the unbiased variances are those of scikit-image's default.
    """
    size = SSIM_WINDOW_PX**2
    unbiased = size / (size - 1)

    def windowed(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, SSIM_WINDOW_PX, stride=1)

    mean_a, mean_b = windowed(a), windowed(b)
    variance_a = unbiased * (windowed(a * a) - mean_a * mean_a)
    variance_b = unbiased * (windowed(b * b) - mean_b * mean_b)
    covariance = unbiased * (windowed(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return (luminance * structure).mean()
