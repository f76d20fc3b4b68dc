"""An image autoencoder of the published form, small enough for tests."""

from __future__ import annotations

from typing import Any

import torch


def make_vae(**changes: Any) -> Any:
    """An AutoencoderKL of diffusers with random weights; `changes` to its config."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    sizes = {
        "down_block_types": 4 * ["DownEncoderBlock2D"],
        "up_block_types": 4 * ["UpDecoderBlock2D"],
        "block_out_channels": [8, 8, 16, 16],
        "norm_num_groups": 4,
        "scaling_factor": 0.13025,
    }
    network: Any = AutoencoderKL
    return network(**{**sizes, **changes}).eval()
