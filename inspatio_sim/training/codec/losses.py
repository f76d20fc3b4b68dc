"""What the narrow codec of `tiny` learns: frames that look the same after latents, and latents a model can learn.

Frames are [B, T, H, W, 3] in [0, 1], latents [B, n, h, w, C], as in `TinyAutoencoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.codecs.tiny_network import PIXELS_PER_LATENT, FrameConv, TinyAutoencoder, pixels_of_latents
from inspatio_sim.errors import InputError
from inspatio_sim.latents import TEMPORAL_STRIDE

SSIM_WINDOW_PX = 7
SSIM_SCALES = 3  # of the picture, of half its size, of a quarter
RIDGE = 1e-6  # of the least squares, of the mean square of a latent: harmless, and never singular
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for values in [0, 1]


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig:
    """Weights of the parts of the loss."""

    l1: float = 1.0
    l2: float = 5.0  # squared error: what PSNR counts
    ssim: float = 0.2
    motion: float = 0.5  # L1 of the change from frame to frame: no flicker
    latent: float = 0.01  # latents of mean 0 and variance 1, channel by channel
    latent_noise: float = 0.03  # standard deviation of noise between encoder and decoder: what a sampler leaves

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise InputError(f"{name}={value}: want 0 or more")


@dataclass(frozen=True, kw_only=True)
class CodecLoss:
    """The parts, and the sum to minimise. Each []"""

    total: Tensor
    l1: Tensor
    l2: Tensor
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
    if (frames.shape[1] - 1) % TEMPORAL_STRIDE:
        raise InputError(f"{frames.shape[1]} frames: want 4n - 3")
    first = frames[:, :1].expand(-1, TEMPORAL_STRIDE - 1, -1, -1, -1)
    latents, _ = network.encode(torch.cat([first, frames], dim=1))
    decoded, _ = network.decode(latents if noise is None else latents + noise)
    return decoded[:, TEMPORAL_STRIDE - 1 :], latents


@torch.no_grad()
def start_linear_path(network: TinyAutoencoder, batches: Callable[[], Iterable[Tensor]], *, seed: int = 0) -> None:
    """Make the linear path the best of its kind for these frames, and let the network beside it begin with nothing.

    A latent's channels are the principal components of the pixels under it, each scaled by the square root of its
    deviation (all alike would give fine detail the weight of brightness, untouched ones nearly none), then turned
    at random so that all channels have one size. The decoder's map is that of least squares.

    Args:
        network: with a linear path.
        batches: gives the frames, each time it is called. Each [B, 4n, 8h, 8w, 3]
        seed: of the turn.
    """
    if not network.config.linear_path:
        raise InputError("codec without a linear path: want TinyConfig(linear_path=True)")
    pixels = _Moments()
    for frames in batches():
        pixels.add(pixels_of_latents(frames).flatten(0, -2))
    if pixels.count < PIXELS_PER_LATENT:
        raise InputError(f"{pixels.count} latents' worth of frames: want at least {PIXELS_PER_LATENT}")
    mean, covariance = pixels.mean, pixels.covariance
    variances, axes = torch.linalg.eigh(covariance)
    num_channels = network.config.latent_channels
    deviations, axes = variances[-num_channels:].clamp(min=1e-12).sqrt(), axes[:, -num_channels:]
    turn, _ = torch.linalg.qr(torch.randn(num_channels, num_channels, generator=torch.Generator().manual_seed(seed)))
    encode = turn.double() @ (axes / deviations.sqrt()).T  # [C, 768]
    encode = encode / (encode @ covariance @ encode.T).diagonal().sqrt()[:, None]
    network.linear_encoder.weight.copy_(encode)
    network.linear_encoder.bias.copy_(-encode @ mean)
    _fit_linear_decoder(network, batches())
    for half in (network.encoder, network.decoder):
        if half:
            last = half[-1]
            assert isinstance(last, FrameConv)
            assert last.bias is not None
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)


def _fit_linear_decoder(network: TinyAutoencoder, batches: Iterable[Tensor]) -> None:
    """Least squares: pixels from the latents of the linear encoder and their neighbours."""
    gram = products = torch.zeros((), dtype=torch.float64)
    for frames in batches:
        pixels = pixels_of_latents(frames)
        latents_NCHW = network.linear_encoder(pixels).flatten(0, 1).movedim(-1, 1)
        around = F.unfold(F.pad(latents_NCHW, (1, 1, 1, 1), mode="replicate"), 3)  # [N, 9 C, h w]
        around = F.pad(around.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0).double()
        gram = gram + around.T @ around
        products = products + around.T @ pixels.flatten(0, -2).double()
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, products)  # [9 C + 1, 768]
    layer = network.linear_decoder
    assert layer.bias is not None
    layer.weight.copy_(solution[:-1].T.unflatten(1, layer.weight.shape[1:]))
    layer.bias.copy_(solution[-1])


class _Moments:
    """Mean and covariance of rows that come in batches, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._products = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        self.count += len(rows)
        self._sum, self._products = self._sum + rows.sum(0), self._products + rows.T @ rows

    @property
    def mean(self) -> Tensor:
        return self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        return self._products / self.count - torch.outer(self.mean, self.mean)


def codec_loss(decoded: Tensor, frames: Tensor, latents: Tensor, config: CodecLossConfig) -> CodecLoss:
    """How far a reconstruction is off, and how far its latents are from unit size."""
    l1, l2 = (decoded - frames).abs().mean(), (decoded - frames).square().mean()
    pictures, wanted = (x.flatten(0, 1).movedim(-1, 1).contiguous() for x in (decoded, frames))  # [B T, 3, H, W]
    unlike = 1 - multiscale_ssim(pictures, wanted)
    motion = (decoded.diff(dim=1) - frames.diff(dim=1)).abs().mean() if frames.shape[1] > 1 else l1.new_zeros(())
    mean, variance = latents.flatten(0, -2).mean(0), latents.flatten(0, -2).var(0)
    latent = (mean.square() + (variance - 1).square()).mean()
    total = config.l1 * l1 + config.l2 * l2 + config.ssim * unlike + config.motion * motion + config.latent * latent
    return CodecLoss(total=total, l1=l1, l2=l2, ssim=unlike, motion=motion, latent=latent)


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
        rows = F.avg_pool2d(x, (SSIM_WINDOW_PX, 1), stride=1)  # one way after the other: a quarter of the work
        return F.avg_pool2d(rows, (1, SSIM_WINDOW_PX), stride=1)

    mean_a, mean_b = windowed(a), windowed(b)
    variance_a = unbiased * (windowed(a * a) - mean_a * mean_a)
    variance_b = unbiased * (windowed(b * b) - mean_b * mean_b)
    covariance = unbiased * (windowed(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return (luminance * structure).mean()
