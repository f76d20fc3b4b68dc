"""What a pass of a frame transformer costs: floating-point operations, counted from the sizes alone.

A multiply-add is two operations. Only matrix products and attention are counted; norms and activations are under
one percent of them. Cross-attention, which nothing uses, costs nothing.

Letters: D width, E hidden width of the feed-forward, n tokens of an image, N of all images side by side.
"""

from __future__ import annotations

from inspatio_sim.generators.presets.frame_config import NUM_IMAGES, TIME_WAVES, FrameConfig


def pass_flop(config: FrameConfig, grid: tuple[int, int], num_images: int = NUM_IMAGES) -> int:
    """One forward pass of one sample, the timestep's modulation included; its result is that of the noisy image alone.

    Args:
        config: sizes of the transformer.
        grid: height and width of an image in latents.
        num_images: side by side; 1: the noisy one alone.
    """
    wide, hidden = config.hidden_size, config.mlp_size
    image = config.tokens_of(*grid)  # n
    tokens = num_images * image  # N
    patch = config.patch_size**2
    embedding = 2 * tokens * patch * (config.in_channels + config.mask_channels) * wide
    result = 2 * image * wide * patch * config.out_channels
    time = 2 * (TIME_WAVES + wide + 6 * wide) * wide

    def block(wanted: int) -> int:
        keys_values, queries = 2 * tokens * 2 * wide * wide, 2 * wanted * wide * wide
        attention = 4 * wanted * tokens * wide
        after = 2 * wanted * wide * (wide + 2 * hidden)
        return keys_values + queries + attention + after

    return embedding + time + (config.depth - 1) * block(tokens) + block(image) + result
