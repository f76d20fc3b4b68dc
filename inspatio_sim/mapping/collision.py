"""A sphere moving among occupied cells: how far it gets, and the normal of the obstacle.

The distance from a moving point to a box is piecewise quadratic in time, so the time of contact is
exact, not sampled. Unknown cells are not obstacles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.kernels import kernel
from inspatio_sim.mapping.occupancy import cell_at

SKIN_M = 1e-5  # touching is not entering, so rounding does not stop a sphere that slides along a wall


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How a straight motion of a sphere ended."""

    fraction: float  # free fraction of the segment, 0..1
    normal: NDArray[np.float64] | None  # unit vector away from the obstacle; None if nothing was hit. [3]


def sweep_sphere(storage, cell_m: float, start_m: NDArray, end_m: NDArray, radius_m: float) -> Sweep:
    """Move a sphere from start to end until it touches an occupied cell.

    A sphere that already overlaps obstacles is shrunk to its clearance for this motion: it may move
    freely as long as it does not come any nearer to them, so it never freezes.
    """
    clearance_m = _clearance(storage, cell_m, start_m, radius_m)
    fraction, normal = _first_contact(storage, cell_m, start_m, end_m, min(radius_m, clearance_m))
    return Sweep(fraction=fraction, normal=None if fraction >= 1 else normal)


@kernel
def _box_distance(px, py, pz, lx, ly, lz, cell_m):
    dx = max(lx - px, 0.0, px - lx - cell_m)
    dy = max(ly - py, 0.0, py - ly - cell_m)
    dz = max(lz - pz, 0.0, pz - lz - cell_m)
    return np.sqrt(dx * dx + dy * dy + dz * dz)


@kernel
def _clearance(storage, cell_m, point_m, limit_m):
    """Distance from a point to the nearest occupied cell, at most `limit_m`; 0 inside one."""
    best = limit_m
    low = np.floor((point_m - limit_m) / cell_m).astype(np.int64)
    high = np.floor((point_m + limit_m) / cell_m).astype(np.int64)
    for x in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            for z in range(low[2], high[2] + 1):
                block, cell = cell_at(storage, x, y, z)
                if block >= 0 and storage.log_odds[block, cell] > 0:
                    distance = _box_distance(
                        point_m[0], point_m[1], point_m[2], x * cell_m, y * cell_m, z * cell_m, cell_m
                    )
                    best = min(best, distance)
    return best


@kernel
def _first_contact(storage, cell_m, start_m, end_m, radius_m):
    """Fraction of the segment before the sphere enters an occupied cell, and the contact normal."""
    fraction = 1.0
    normal = np.zeros(3)
    low = np.empty(3, dtype=np.int64)
    high = np.empty(3, dtype=np.int64)
    for axis in range(3):
        low[axis] = np.int64(np.floor((min(start_m[axis], end_m[axis]) - radius_m) / cell_m))
        high[axis] = np.int64(np.floor((max(start_m[axis], end_m[axis]) + radius_m) / cell_m))
    corner = np.empty(3)
    for x in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            for z in range(low[2], high[2] + 1):
                block, cell = cell_at(storage, x, y, z)
                if block < 0 or not storage.log_odds[block, cell] > 0:
                    continue
                corner[0], corner[1], corner[2] = x * cell_m, y * cell_m, z * cell_m
                if _box_distance(start_m[0], start_m[1], start_m[2], corner[0], corner[1], corner[2], cell_m) <= SKIN_M:
                    continue  # the centre is inside: let it out
                t = _contact_time(start_m, end_m, corner, cell_m, radius_m)
                if t < fraction:
                    fraction = t
                    length = 0.0
                    for axis in range(3):
                        p = start_m[axis] + t * (end_m[axis] - start_m[axis])
                        normal[axis] = p - min(max(p, corner[axis]), corner[axis] + cell_m)
                        length += normal[axis] ** 2
                    if length > 0:
                        normal /= np.sqrt(length)
                    else:  # a point sphere: face back along the motion
                        normal[:] = (start_m - end_m) / np.sqrt(((start_m - end_m) ** 2).sum())
    return fraction, normal


@kernel
def _contact_time(start_m, end_m, corner, cell_m, radius_m):
    """First t in [0, 1] at which a point on the segment comes within `radius_m` of the box; 2 if it never does.

    Coming nearer than the radius by less than SKIN_M does not count.
    """
    velocity = end_m - start_m
    # Between these times every axis is steadily below, inside or above the box: the distance is quadratic.
    times = np.ones(8)
    times[0] = 0.0
    count = 1
    for axis in range(3):
        if velocity[axis] == 0:
            continue
        for face in (corner[axis], corner[axis] + cell_m):
            t = (face - start_m[axis]) / velocity[axis]
            if t > 0 and t < 1:
                times[count] = t
                count += 1
    times = np.sort(times)
    enter = max(radius_m - SKIN_M, 0.0)
    touched = 2.0
    for i in range(7):
        first, last = times[i], times[i + 1]
        middle = 0.5 * (first + last)
        a = b = c = 0.0  # squared distance = a t^2 + 2 b t + c
        for axis in range(3):
            p = start_m[axis] + middle * velocity[axis]
            face = corner[axis] if p < corner[axis] else corner[axis] + cell_m
            if p < corner[axis] or p > corner[axis] + cell_m:
                offset = start_m[axis] - face
                a += velocity[axis] ** 2
                b += velocity[axis] * offset
                c += offset * offset
        if touched > 1:
            t = _first_within(a, b, c, radius_m, first, last)
            if t <= 1:
                touched = t
        if touched <= 1:
            nearest_t = last if a == 0 else min(max(-b / a, first), last)
            if a * nearest_t * nearest_t + 2 * b * nearest_t + c <= enter * enter:
                return touched
            if a * last * last + 2 * b * last + c > radius_m * radius_m:
                touched = 2.0  # it only grazed
    return 2.0


@kernel
def _first_within(a, b, c, radius_m, first, last):
    """First t in [first, last] with a t^2 + 2 b t + c <= radius^2; 2 if there is none."""
    rest = c - radius_m * radius_m
    if a * first * first + 2 * b * first + rest <= 0:
        return first
    if a * first + b >= 0:
        return 2.0  # from here on it only gets farther
    discriminant = b * b - a * rest
    if discriminant < 0:
        return 2.0
    # The point approaches and is still outside: a root before `first` was moved there by rounding.
    t = max((-b - np.sqrt(discriminant)) / a, first)
    return t if t <= last else 2.0
