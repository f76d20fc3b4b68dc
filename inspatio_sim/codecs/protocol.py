"""What every codec offers: frames to latents and back, whole or chunk by chunk."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

CodecState = dict[str, Tensor]
"""What one stream remembers between chunks; every tensor has the batch first, so streams can be joined and
split. Never changed in place: each chunk returns a new one, so an old one can be gone back to."""


class Codec(Protocol):
    """A causal video autoencoder: the first latent of a stream is one frame, each later one `temporal_stride`.

    Video is float in [-1, 1], [B, T, 3, H, W]; latents are normalised, [B, t, latent_channels, h, w].
    A first chunk has 4n - 3 frames, a later one 4n; n latents either way.
    """

    latent_channels: int
    spatial_stride: int
    temporal_stride: int
    memory_frames: int
    """A latent depends on so many frames before its own, and on no earlier one.

    So latents from the k-th on can be encoded without the stream's start: begin with the last frame of latent
    k - ceil(memory_frames / temporal_stride) - 1 as first frame, and drop the latents before the k-th.
    """

    def encode(self, video: Tensor) -> Tensor:
        """Encode a whole clip of any length: 4n - 3 frames to n latents, in between with the last frame repeated."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode n latents of a whole clip to 4n - 3 frames."""
        ...

    def encode_chunk(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Encode the next frames of a stream; None begins one.

        Chunks give what the whole clip gives, except that a codec whose latents see later frames guesses those
        for a chunk's last latent.
        """
        ...

    def encode_complete(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Encode the next frames of a stream to those latents that nothing to come can change, perhaps fewer."""
        ...

    def finish(self, state: CodecState) -> Tensor:
        """The latents that `encode_complete` still holds back, the stream being over: one or none."""
        ...

    def decode_chunk(self, latents: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Decode the next latents of a stream; None begins one."""
        ...
