"""Distribution matching between two score networks, whatever they are: gradient and loss of a student.

Source: DMD (arXiv 2311.18828), equations 7 and 8; DMD2 (arXiv 2405.14867).
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORE_TIMESTEPS = (20.0, 980.0)  # of the score networks: neither clean nor pure noise says anything


def matching_gradient(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """What distribution matching says of each clip: g = (D_fake - D_real) / mean |x - D_real|.

    D is the x_0 that the real and the fake score network see in the noised clip; g is a positive multiple of
    the difference of their scores.

    Args:
        x: the student's clips. [B, F, C, h, w]
        real: D of the teacher. [B, F, C, h, w]
        fake: D of the critic. [B, F, C, h, w]
    """
    x, real, fake = x.double(), real.double(), fake.double()
    size = (x - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    return torch.nan_to_num((fake - real) / size)


def matching_loss(x: Tensor, g: Tensor) -> Tensor:
    """0.5 mean (x - stop(x - g))^2, whose gradient with respect to x is g / numel(x). -> []"""
    x = x.double()
    return 0.5 * (x - (x - g).detach()).square().mean()
