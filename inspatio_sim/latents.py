"""How pixels and latents of video relate: strides, and the latents of a block."""

from __future__ import annotations

SPATIAL_STRIDE = 8  # pixels a latent, each way
TEMPORAL_STRIDE = 4  # frames a latent; the first latent of a stream is one frame
BLOCK_LATENTS = 3  # of a whole block; reference, history and block have as many rotary slots each


def num_frames_of(num_latents: int) -> int:
    """Frames that the first `num_latents` latents of a stream stand for."""
    return TEMPORAL_STRIDE * (num_latents - 1) + 1
