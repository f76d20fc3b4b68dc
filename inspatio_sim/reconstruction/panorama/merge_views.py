"""Depth guessed view by view around one point becomes one map of distances: one scale a view, then one surface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.motion.camera import Array, Intrinsics
from inspatio_sim.reconstruction.panorama.equirectangular import MAX_ROWS, MIN_ROWS, Direction, ray_lengths, rays_of

COARSE_ROWS = 128  # of the map on which overlaps are compared
MIN_OVERLAP_PX = 20  # of it, for two views to say something about each other's scale
CENTRE_WEIGHT = 3.0  # exponent: the higher, the more a view counts for in its middle only


@dataclass(frozen=True, kw_only=True)
class MergedRange:
    """What the views agreed on."""

    range_units: NDArray[np.float32]  # distance along the ray, 0 = seen by no view. [h, 2 h]
    scales: Array  # what each view's depth was multiplied by. [V]
    disagreement_before: float  # median |log ratio| of two views' distances where they overlap
    disagreement_after: float


def merged_range(
    depth_units: NDArray[np.float32],
    intrinsics: Intrinsics,
    directions: Sequence[Direction],
    unit_of: Sequence[int] | None = None,
) -> MergedRange:
    """Bring the views to one scale and fuse them.

    Args:
        depth_units: z-depth of each view, 0 = unknown. [V, H, W]
        intrinsics: of all views.
        directions: where they look from one point. [V]
        unit_of: views with the same number are in the same unit of length already; None: each has its own. [V]
    """
    unit_of = range(len(directions)) if unit_of is None else unit_of
    log_range = np.full(depth_units.shape, np.nan, np.float32)
    np.log(depth_units * ray_lengths(intrinsics), out=log_range, where=depth_units > 0)
    coarse = [
        _seen_from(view, intrinsics, direction, COARSE_ROWS)
        for view, direction in zip(log_range, directions, strict=True)
    ]
    log_scales, before, after = _log_scales(np.stack([values for values, _ in coarse]), unit_of)

    num_rows = int(np.clip(round(math.pi * intrinsics.fx_px), MIN_ROWS, MAX_ROWS))
    total, weights = np.zeros((num_rows, 2 * num_rows)), np.zeros((num_rows, 2 * num_rows))
    for view, direction, log_scale in zip(log_range, directions, log_scales, strict=True):
        values, weight = _seen_from(view, intrinsics, direction, num_rows)
        is_known = np.isfinite(values)
        total[is_known] += weight[is_known] * (values[is_known] + log_scale)
        weights[is_known] += weight[is_known]
    fused = np.exp(np.divide(total, weights, out=np.full_like(total, -np.inf), where=weights > 0))
    return MergedRange(
        range_units=fused.astype(np.float32),
        scales=np.exp(log_scales),
        disagreement_before=before,
        disagreement_after=after,
    )


def _log_scales(log_range: NDArray[np.float32], unit_of: Sequence[int]) -> tuple[Array, float, float]:
    """One log scale a unit, least squares over the median differences of all pairs that overlap; their mean is 0.

    Args:
        log_range: of each view on one map of directions, NaN where it does not look. [V, h, 2 h]
        unit_of: see `merged_range`. [V]

    Returns:
        Of each view [V], and the median |difference| in overlaps before and after.
    """
    num_views, num_rows, _ = log_range.shape
    row_area = np.cos((0.5 - (np.arange(num_rows) + 0.5) / num_rows) * math.pi)
    area = np.broadcast_to(row_area[:, None], log_range[0].shape)
    rows, wanted, overlaps = [], [], []
    for first in range(num_views):
        for second in range(first):
            difference = log_range[first] - log_range[second]
            is_shared = np.isfinite(difference)
            if is_shared.sum() < MIN_OVERLAP_PX:
                continue
            weight = math.sqrt(area[is_shared].sum())
            row = np.zeros(max(unit_of) + 1)
            row[unit_of[first]] += weight
            row[unit_of[second]] -= weight  # nothing is asked of two views in one unit
            rows.append(row)
            wanted.append(-weight * float(np.median(difference[is_shared])))
            overlaps.append((first, second, difference[is_shared]))
    if not rows:
        return np.zeros(num_views), 0.0, 0.0
    log_scales = np.linalg.lstsq(np.stack(rows), np.array(wanted), rcond=None)[0][list(unit_of)]  # least norm: mean 0
    before = np.concatenate([difference for _, _, difference in overlaps])
    after = np.concatenate([difference + log_scales[a] - log_scales[b] for a, b, difference in overlaps])
    return log_scales, float(np.median(np.abs(before))), float(np.median(np.abs(after)))


def _seen_from(
    values: NDArray[np.float32], intrinsics: Intrinsics, direction: Direction, num_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A view's values laid out over all directions, NaN where it does not look; weights fall to 0 at its edge.

    Both [num_rows, 2 num_rows].
    """
    R_world_camera = direction.T_world_camera[:3, :3]
    x, y, z = np.moveaxis(rays_of(num_rows) @ R_world_camera, -1, 0)
    is_ahead = z > 1e-6
    z = np.where(is_ahead, z, 1)
    u, v = x / z * intrinsics.fx_px + intrinsics.cx_px, y / z * intrinsics.fy_px + intrinsics.cy_px
    across = 1 - np.abs(u - intrinsics.cx_px) / (0.5 * intrinsics.width_px)
    down = 1 - np.abs(v - intrinsics.cy_px) / (0.5 * intrinsics.height_px)
    is_inside = is_ahead & (across > 0) & (down > 0)
    columns = np.where(is_inside, u, 0).round().astype(int).clip(0, intrinsics.width_px - 1)
    lines = np.where(is_inside, v, 0).round().astype(int).clip(0, intrinsics.height_px - 1)
    seen = np.where(is_inside, values[lines, columns], np.nan)
    weight = np.where(is_inside, (across * down).clip(0, 1) ** CENTRE_WEIGHT, 0)
    return seen.astype(np.float32), weight.astype(np.float32)
