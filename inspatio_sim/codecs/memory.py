"""What codecs hold in memory: weights and streams as their modules have them, the most at work from their widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Protocol

import torch
from torch import nn

from inspatio_sim.codecs.sd_vae import sdxl_network
from inspatio_sim.codecs.tiny_network import GROWN, TinyAutoencoder, TinyConfig
from inspatio_sim.codecs.wan import wan_network
from inspatio_sim.latents import SPATIAL_STRIDE, TEMPORAL_STRIDE

FLOAT32_BYTES = 4
WAN_PEAK = 5100  # elements a pixel of one frame, whatever the number of latents: it works through them one by one
WAN_STATE = 3787  # elements a pixel: frames that the convolutions of both halves keep
SD_PEAK = 784  # elements a pixel that decoding holds; encoding holds 640


class CodecMemory(Protocol):
    """What a codec needs. Sizes are in latents."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights."""
        ...

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """The most that encoding or decoding so many latents of one stream at once holds."""
        ...

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """What is kept between chunks of one world: the encoder's and the decoder's stream."""
        ...


@dataclass(frozen=True)
class TinyCodecMemory:
    """Of TAEHV."""

    config: TinyConfig

    @cached_property
    def network(self) -> TinyAutoencoder:
        with torch.device("meta"):
            return TinyAutoencoder(self.config)

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights."""
        return _num_parameters(TinyAutoencoder, self.config) * dtype.itemsize

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """At the finest resolution, where pairs of frames are joined (encoding) or the last convolutions run."""
        pixels = SPATIAL_STRIDE**2 * height * width
        num_frames = TEMPORAL_STRIDE * num_latents
        encoder_state, decoder_state = self._state_elements(height, width)
        joining = 2.5 * self.config.encoder_width + 3  # frames, side by side, joined; and what they came from
        encoder = joining * pixels * num_frames
        if self.config.time_alignment == "look-ahead":  # the last latent again, behind what came before it
            encoder = max(encoder, joining * pixels * TEMPORAL_STRIDE + encoder_state)
        decoder, frames = 0.0, 1 / TEMPORAL_STRIDE  # at each stage, for one at the end
        for stage, (channels, next_channels) in enumerate(pairwise(self.config.decoder_widths)):
            pixels_in = 4.0 ** (stage - 3)  # for one at the end
            memory_block = 6 * channels * frames * pixels_in
            frames *= GROWN[stage]
            convolution = (channels + next_channels) * frames * 4 * pixels_in
            decoder = max(decoder, memory_block, convolution)
        network = int(max(encoder, decoder * pixels * num_frames + decoder_state)) * dtype.itemsize
        video = pixels * num_frames * 3 * FLOAT32_BYTES
        linear = pixels * num_frames * 3 * dtype.itemsize + 2 * video if self.config.linear_path else 0  # decoding
        return max(network, linear) + video

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """One frame for every memory block, and the frame that waits for its group."""
        return sum(self._state_elements(height, width)) * dtype.itemsize

    def _state_elements(self, height: int, width: int) -> tuple[int, int]:
        """Of the encoder, of the decoder."""
        size_px = (SPATIAL_STRIDE * height, SPATIAL_STRIDE * width)
        encoder, decoder = (
            sum(math.prod(shape) for shape in shapes.values())
            for shapes in (
                self.network.encoder_memory_shapes(1, *size_px),
                self.network.decoder_memory_shapes(1, height, width),
            )
        )
        waiting = 0 if self.config.time_alignment == "causal" else 3 * math.prod(size_px)
        return encoder + waiting, decoder


@dataclass(frozen=True)
class WanCodecMemory:
    """Of Wan 2.1's autoencoder; the most at work and the streams counted at one size: both grow with the pixels."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights.

        Raises:
            InputError: diffusers is missing.
        """
        return _num_parameters(wan_network) * dtype.itemsize

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """One latent's work and the frames of all."""
        pixels = SPATIAL_STRIDE**2 * height * width
        return WAN_PEAK * pixels * dtype.itemsize + num_latents * TEMPORAL_STRIDE * pixels * 3 * FLOAT32_BYTES

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """Two frames for every convolution."""
        return WAN_STATE * SPATIAL_STRIDE**2 * height * width * dtype.itemsize


@dataclass(frozen=True)
class SdVaeMemory:
    """Of the published autoencoder of images: a latent is one image, and nothing is kept."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights.

        Raises:
            InputError: diffusers is missing.
        """
        return _num_parameters(sdxl_network) * dtype.itemsize

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """Of images at once."""
        return SD_PEAK * SPATIAL_STRIDE**2 * height * width * num_latents * dtype.itemsize

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """None."""
        return 0


@cache
def _num_parameters(make: Callable[..., nn.Module], *arguments: object) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(*arguments).parameters())
