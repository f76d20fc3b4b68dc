"""How frames and latents of video relate: strides, and the latents of a block.

A latent covers 8x8 pixels; the first latent of a stream is one frame, each later one is four.
"""

from __future__ import annotations

from inspatio_sim.errors import InputError

SPATIAL_STRIDE = 8  # pixels a latent, each way
TEMPORAL_STRIDE = 4  # frames a latent, from the second one on
BLOCK_LATENTS = 3  # of a whole block, as published; reference, history and block have as many rotary slots each
BLOCK_FRAMES = TEMPORAL_STRIDE * BLOCK_LATENTS  # of every whole block but a stream's first


def num_frames_of(num_latents: int) -> int:
    """Frames of a stream's first `num_latents` latents."""
    return TEMPORAL_STRIDE * (num_latents - 1) + 1


def num_latents_of(num_frames: int) -> int:
    """Latents of a stream's first `num_frames` frames; the last latent may lack some of its own."""
    return 1 + -(-(num_frames - 1) // TEMPORAL_STRIDE)


def check_block_latents(block_latents: object) -> None:
    """Refuse a block that is no latent long, or longer than its rotary slots.

    Raises:
        InputError: names the range.
    """
    if type(block_latents) is not int or not 1 <= block_latents <= BLOCK_LATENTS:
        wanted = f"a whole number from 1 (low latency) to {BLOCK_LATENTS} (as published)"
        raise InputError(f"block_latents={block_latents!r}: want {wanted}")
