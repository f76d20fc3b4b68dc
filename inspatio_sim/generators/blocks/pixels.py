"""Pictures as bytes, and as networks have them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def video_from(frames_u8: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] uint8 -> [..., 3, H, W] float32 in [-1, 1]"""
    return torch.from_numpy(np.ascontiguousarray(frames_u8)).movedim(-1, -3).float().div_(127.5).sub_(1)


def frames_from(video: Tensor) -> NDArray[np.uint8]:
    """[..., 3, H, W] in [-1, 1], or a little beyond -> [..., H, W, 3] uint8, truncated"""
    return to_u8(video).movedim(-3, -1).contiguous().cpu().numpy()


def to_u8(image: Tensor) -> Tensor:
    """[-1, 1] to 0..255, truncated; of any shape."""
    return image.float().mul(127.5).add_(128).clamp_(0, 255).to(torch.uint8)
