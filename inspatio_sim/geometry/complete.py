"""Depth for unmeasured pixels: push-pull completion from the known ones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def complete_depth(depth_m: NDArray[np.float32], fallback_m: float) -> NDArray[np.float32]:
    """Fill unknown depth smoothly from the known pixels around it; known pixels stay as they are.

    Inverse depth is averaged down a pyramid by weight and pulled back up where weight is missing
    (Gortler et al., The Lumigraph, 1996, section 3.6): planes stay planes, and every hole ends with
    the mean of its border.

    Args:
        depth_m: z-depth, 0 = unknown. [H, W]
        fallback_m: depth of the whole image if nothing is known.
    """
    is_known = depth_m > 0
    if is_known.all():
        return depth_m
    if not is_known.any():
        return np.full_like(depth_m, fallback_m)
    weight = is_known.astype(np.float32)
    weighted_inverse = np.divide(1.0, depth_m, out=np.zeros_like(depth_m), where=is_known)
    pyramid = [(weighted_inverse, weight)]
    while min(weight.shape) > 1 and not weight.all():  # push
        half = ((weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2)
        weighted_inverse = 4 * cv2.resize(weighted_inverse, half, interpolation=cv2.INTER_AREA)
        weight = 4 * cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
        excess = np.maximum(weight, np.float32(1))
        weighted_inverse = np.asarray(weighted_inverse / excess, dtype=np.float32)
        weight = np.asarray(weight / excess, dtype=np.float32)
        pyramid.append((weighted_inverse, weight))
    coarse_sum, coarse_weight = pyramid.pop()
    filled = coarse_sum / np.maximum(coarse_weight, 1e-12)
    if (coarse_weight == 0).any():
        filled[coarse_weight == 0] = coarse_sum.sum() / coarse_weight.sum()
    while pyramid:  # pull
        weighted_inverse, weight = pyramid.pop()
        filled = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        filled = weighted_inverse + (1 - weight) * filled
    return np.where(is_known, depth_m, 1 / filled)
