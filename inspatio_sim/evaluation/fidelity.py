"""How like the truth frames are, pixel by pixel, and how much they flicker.

Frames are RGB, uint8, [T, H, W, 3]; masks are [T, H, W].
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError

MAX_PSNR_DB = 100.0  # equal pictures, whose ratio is infinite
SSIM_WINDOW_PX = 7
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of SSIM, for values to 255


def psnr_db(
    frames_u8: NDArray[np.uint8], truth_u8: NDArray[np.uint8], is_counted: NDArray[np.bool_] | None = None
) -> float:
    """Peak signal to noise, of the mean squared error over all counted pixels together; NaN where none is."""
    _check(frames_u8, truth_u8, is_counted)
    squared = np.square(frames_u8.astype(np.float32) - truth_u8.astype(np.float32)).mean(-1)
    counted = squared if is_counted is None else squared[is_counted]
    if counted.size == 0:
        return math.nan
    error = float(counted.mean(dtype=np.float64))
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * math.log10(255**2 / error))


def ssim_map(frames_u8: NDArray[np.uint8], truth_u8: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Structural similarity around every pixel, mean of the three channels; the border is mirrored. [T, H, W]

    Source: Wang et al. 2004; the uniform window and the unbiased variances are those of scikit-image's default.
    """
    _check(frames_u8, truth_u8, None)
    if min(frames_u8.shape[1:3]) < SSIM_WINDOW_PX:
        raise InputError(f"frames of {frames_u8.shape[1]}x{frames_u8.shape[2]} px: want at least {SSIM_WINDOW_PX}")
    maps = [_ssim(_picture(a), _picture(b)) for a, b in zip(frames_u8, truth_u8, strict=True)]
    return torch.stack(maps).numpy()


def mean_where(values: NDArray[np.float32], is_counted: NDArray[np.bool_]) -> float:
    """Mean of the counted pixels, NaN where there is none."""
    return float(values[is_counted].mean(dtype=np.float64)) if is_counted.any() else math.nan


def flicker(frames_u8: NDArray[np.uint8]) -> float:
    """Mean change from each frame to the next, in grey levels; 0 for a single frame."""
    if len(frames_u8) < 2:
        return 0.0
    changes = [np.abs(b.astype(np.int16) - a).mean() for a, b in zip(frames_u8[:-1], frames_u8[1:], strict=True)]
    return float(np.mean(changes))


def _check(frames_u8: NDArray[np.uint8], truth_u8: NDArray[np.uint8], is_counted: NDArray[np.bool_] | None) -> None:
    are_u8 = frames_u8.dtype == truth_u8.dtype == np.uint8
    if not are_u8 or frames_u8.shape != truth_u8.shape or frames_u8.ndim != 4:
        shapes = f"{frames_u8.dtype} {frames_u8.shape} and {truth_u8.dtype} {truth_u8.shape}"
        raise InputError(f"frames are {shapes}: want both uint8 T x H x W x 3, of one shape")
    if is_counted is not None and is_counted.shape != frames_u8.shape[:3]:
        raise InputError(f"mask has shape {is_counted.shape}: want {frames_u8.shape[:3]}")


def _picture(frame_u8: NDArray[np.uint8]) -> Tensor:
    """Mirrored at the border, in double precision: variances are small differences. [3, H + 6, W + 6]"""
    border = (SSIM_WINDOW_PX // 2,) * 4
    return F.pad(torch.from_numpy(np.ascontiguousarray(frame_u8)).movedim(-1, 0).double(), border, mode="reflect")


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    size = SSIM_WINDOW_PX**2
    unbiased = size / (size - 1)

    def windowed(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, SSIM_WINDOW_PX, stride=1)

    mean_a, mean_b = windowed(a), windowed(b)
    variance_a = unbiased * (windowed(a * a) - mean_a * mean_a)
    variance_b = unbiased * (windowed(b * b) - mean_b * mean_b)
    covariance = unbiased * (windowed(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return (luminance * structure).mean(0).float()
