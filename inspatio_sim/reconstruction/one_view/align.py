"""Robust fits that bring one depth estimate to another's scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 5
_KEEP_SHARE = 0.7  # of the pixels with the smallest residual that each round fits


def fit_scale(source: NDArray, target: NDArray) -> float:
    """`scale` with scale * source ~ target: the median ratio. Both hold positive numbers. [N]"""
    return float(np.exp(np.median(np.log(target) - np.log(source))))


def fit_affine(source: NDArray, target: NDArray) -> tuple[float, float]:
    """(scale, shift) with scale * source + shift ~ target: least squares, trimmed to the best 70 %. [N]

    Where the fit would turn the order round or the source is constant, (median ratio, 0) is returned.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    keep = np.ones(len(source), bool)
    scale, shift = 0.0, 0.0
    for _ in range(_ROUNDS):
        centred = source[keep] - source[keep].mean()
        variance = float(centred @ centred)
        scale = float(centred @ target[keep]) / variance if variance > 0 else 0.0
        shift = float(target[keep].mean() - scale * source[keep].mean())
        residual = np.abs(scale * source + shift - target)
        keep = residual <= np.quantile(residual, _KEEP_SHARE)
    if scale <= 0:
        return float(np.median(target) / max(np.median(source), 1e-12)), 0.0
    return scale, shift
