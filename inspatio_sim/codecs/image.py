"""Single images to latents and back: what the frame generator needs of a codec."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError


class ImageCodec(Protocol):
    """An autoencoder of images. Latents are scaled: their numbers spread about as wide as normal ones."""

    latent_channels: int
    spatial_stride: int

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] [B, 3, H, W] to latents [B, latent_channels, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse: images in [-1, 1], [B, 3, H, W]."""
        ...


class SingleFrames:
    """A video codec as an image codec: every image is the first frame of a stream of its own."""

    def __init__(self, codec: Codec, latent_scale: float) -> None:
        """Wrap a codec.

        Args:
            codec: of video.
            latent_scale: what its latents are multiplied by.
        """
        if not latent_scale > 0:
            raise InputError(f"latent_scale={latent_scale}: want a number above 0")
        self.codec = codec
        self.latent_scale = latent_scale
        self.latent_channels: int = codec.latent_channels
        self.spatial_stride: int = codec.spatial_stride

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] [B, 3, H, W] to latents [B, latent_channels, h, w]."""
        return self.codec.encode(images[:, None])[:, 0] * self.latent_scale

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse: images in [-1, 1], [B, 3, H, W]."""
        return self.codec.decode(latents[:, None] / self.latent_scale)[:, 0]
