"""How frames and latents of video relate: strides, and the latents of a block.

A latent covers 8x8 pixels; the first latent of a stream is one frame, each later one is four.
"""

from __future__ import annotations

from inspatio_sim.errors import InputError

SPATIAL_STRIDE = 8  # pixels per latent, in each direction
TEMPORAL_STRIDE = 4  # frames per latent, from the second one on
BLOCK_LATENTS = 3  # latents per block, as published; reference, history and block each have as many rotary slots
BLOCK_FRAMES = TEMPORAL_STRIDE * BLOCK_LATENTS  # frames per block, except the first of a stream


def num_frames_of(num_latents: int) -> int:
    """Frames of a stream's first `num_latents` latents."""
    return TEMPORAL_STRIDE * (num_latents - 1) + 1


def num_latents_of(num_frames: int) -> int:
    """Latents of a stream's first `num_frames` frames; the last latent may be incomplete."""
    return 1 + -(-(num_frames - 1) // TEMPORAL_STRIDE)


def check_block_latents(block_latents: object) -> None:
    """Raise InputError for a block of no latents, or with more latents than rotary slots.

    Raises:
        InputError: names the range.
    """
    if type(block_latents) is not int or not 1 <= block_latents <= BLOCK_LATENTS:
        wanted = f"a whole number from 1 (low latency) to {BLOCK_LATENTS} (as published)"
        raise InputError(f"block_latents={block_latents!r}: want {wanted}")
