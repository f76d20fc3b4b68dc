"""Photographs to the square images that published models want."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from inspatio_sim.errors import InputError


def to_square(image_u8: NDArray[np.uint8], size_px: int, *, antialias: bool) -> Tensor:
    """Scale the shorter side to `size_px`, cut out the middle.

    Both ways are published: renders go in without antialiasing, photographs with it.

    Args:
        image_u8: [H, W, 3]
        size_px: of the square.
        antialias: PIL's bicubic filter, on bytes; otherwise PyTorch's, on floats (which may leave [-1, 1] a little).

    Returns:
        float32, black is -1 and white 1. [3, S, S]
    """
    if image_u8.ndim != 3 or image_u8.shape[2] != 3 or image_u8.dtype != np.uint8 or not image_u8.size:
        raise InputError(f"image has shape {image_u8.shape}, {image_u8.dtype}: want HxWx3 bytes")
    if size_px < 1:
        raise InputError(f"size_px={size_px}: want 1 or more")
    scale = size_px / min(image_u8.shape[:2])
    height_px, width_px = (round(side * scale) for side in image_u8.shape[:2])
    if antialias:
        scaled = Image.fromarray(image_u8).resize((width_px, height_px), Image.Resampling.BICUBIC)
        image = torch.from_numpy(np.asarray(scaled).copy()).movedim(-1, 0).float() / 255
        top, left = round((height_px - size_px) / 2), round((width_px - size_px) / 2)
    else:
        image = torch.from_numpy(image_u8.copy()).movedim(-1, 0).float() / 255
        image = interpolate(image[None], size=(height_px, width_px), mode="bicubic", align_corners=False)[0]
        top, left = (height_px - size_px) // 2, (width_px - size_px) // 2
    return (image[:, top : top + size_px, left : left + size_px] - 0.5) / 0.5
