"""Which stored view shows most of what is in sight: depth-consistent hits of a few sampled pixels.

A pixel of the current view is lifted to the world and projected into a stored one. It hits if that view has
the same depth there, so that what stands in front of the place is not taken for the place itself. Checked
against the public WorldFM implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import kernel
from inspatio_sim.motion.camera import Array, inverse


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Where to sample and what counts; as published."""

    sample_grid: int = 10  # samples a side, over the whole image
    center_grid: int = 15  # samples a side, over its middle
    center_frac: float = 0.5  # of width and height that the middle takes
    eps_rel: float = 0.02  # how far depths may differ, relative
    eps_abs_m: float = 0.0  # and absolute: the larger one counts
    px_radius: int = 0  # the best of so many neighbours to each side counts
    max_view_angle_deg: float = 180.0  # between the rays on which both cameras see the place
    use_distance_weight: bool = True  # near views count more
    dist_min_m: float = 1.0  # between the cameras: up to here `weight_near`,
    dist_max_m: float = 20.0  # from here on `weight_far`
    weight_near: float = 1.0
    weight_far: float = 0.0
    uniform_sampling: bool = False  # the middle is sampled no denser than the rest

    def __post_init__(self) -> None:
        if self.sample_grid < 1 or self.center_grid < 1:
            raise InputError(f"sample_grid={self.sample_grid}, center_grid={self.center_grid}: want 1 or more")
        if not 0 < self.center_frac <= 1:
            raise InputError(f"center_frac={self.center_frac}: want more than 0, at most 1")
        if self.px_radius < 0:
            raise InputError(f"px_radius={self.px_radius}: want 0 or more")
        if not 0 <= self.dist_min_m < self.dist_max_m:
            raise InputError(
                f"dist_min_m={self.dist_min_m}, dist_max_m={self.dist_max_m}: want 0 or more, and a larger one"
            )

    @property
    def min_cosine(self) -> float:
        """Of the angle between two rays; -1: any angle will do."""
        return float(np.cos(np.radians(min(self.max_view_angle_deg, 180.0))))


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewTable:
    """Stored views as the selection sees them."""

    depth_m: Sequence[NDArray[np.float32]] | NDArray[np.float32]  # z-depth, 0 = unknown. N of [h, w]
    K_px: Array  # intrinsics at the size of `depth_m`, of all views or of each. [3, 3] or [N, 3, 3]
    T_world_camera: Array  # [N, 4, 4]
    P_px: Array = field(init=False)  # world to pixels. [N, 3, 4]
    centre_m: Array = field(init=False)  # of the cameras. [N, 3]

    def __post_init__(self) -> None:
        poses = np.asarray(self.T_world_camera, dtype=np.float64)
        if poses.shape != (len(self.depth_m), 4, 4):
            raise InputError(f"{len(self.depth_m)} depth images with poses {poses.shape}: want a 4x4 pose for each")
        object.__setattr__(self, "P_px", self.K_px @ inverse(poses)[:, :3])
        object.__setattr__(self, "centre_m", np.ascontiguousarray(poses[:, :3, 3]))

    def __len__(self) -> int:
        return len(self.depth_m)


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """A few places that a camera sees."""

    position_m: Array  # in the world. [S, 3]
    centre_m: Array  # of the camera. [3]

    def __len__(self) -> int:
        return len(self.position_m)


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The view that scores best, and how all did."""

    index: int  # the first of the best; 0 if there was nothing to sample
    hits: int  # its own
    num_samples: int  # pixels that had a depth
    hits_per_view: NDArray[np.int64]  # [N]
    score_per_view: Array  # hits, weighted by how near the camera is. [N]


@lru_cache(maxsize=64)
def sample_pixels(height_px: int, width_px: int, config: SelectionConfig) -> NDArray[np.int64]:
    """Columns and rows to sample: an even grid, and a denser one over the middle, where it replaces the first.

    Returns:
        Each pixel once, sorted. [S, 2]
    """
    last = np.array([width_px - 1, height_px - 1])
    pixels = _even_grid(np.zeros(2), last, config.sample_grid)
    if not config.uniform_sampling:
        margin = 0.5 * (1 - config.center_frac)
        low, high = margin * last, (1 - margin) * last
        is_middle = ((pixels >= low) & (pixels <= high)).all(axis=1)
        pixels = np.concatenate([pixels[~is_middle], _even_grid(low, high, config.center_grid)])
    return np.unique(pixels, axis=0)


def _even_grid(low: NDArray, high: NDArray, num_steps: int) -> NDArray[np.int64]:
    """Pixels spread from `low` to `high`. [num_steps^2, 2]"""
    columns, rows = (np.rint(np.linspace(low[i], high[i], num_steps)).astype(np.int64) for i in range(2))
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def sample_depth(depth_m: NDArray[np.float32], K_px: Array, T_world_camera: Array, config: SelectionConfig) -> Samples:
    """Lift the sampled pixels that have a depth to the world.

    Args:
        depth_m: z-depth; 0, NaN or infinite where unknown. [H, W]
        K_px: [3, 3]
        T_world_camera: [4, 4]
        config: where to sample.
    """
    pixels = sample_pixels(*depth_m.shape, config)
    z_m = depth_m[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    has_depth = (z_m > 0) & (z_m < np.inf)
    pixels, z_m = pixels[has_depth], z_m[has_depth]
    position_m = np.empty((len(z_m), 3))
    position_m[:, :2] = (pixels - K_px[:2, 2]) / K_px[[0, 1], [0, 1]] * z_m[:, None]
    position_m[:, 2] = z_m
    return Samples(
        position_m=position_m @ T_world_camera[:3, :3].T + T_world_camera[:3, 3],
        centre_m=np.ascontiguousarray(T_world_camera[:3, 3]),
    )


def count_hits(samples: Samples, views: ViewTable, config: SelectionConfig) -> NDArray[np.int64]:
    """How many of the samples each view shows as well. [N]"""
    settings = (config.eps_rel, config.eps_abs_m, config.px_radius, config.min_cosine)
    return np.array(
        [
            _count_hits(samples.position_m, samples.centre_m, depth_m, views.P_px[i], views.centre_m[i], *settings)
            for i, depth_m in enumerate(views.depth_m)
        ],
        dtype=np.int64,
    )


def distance_weight(distance_m: Array, config: SelectionConfig) -> Array:
    """What a hit counts in a view whose camera is so far away."""
    if not config.use_distance_weight:
        return np.ones_like(distance_m)
    share = np.clip((distance_m - config.dist_min_m) / (config.dist_max_m - config.dist_min_m), 0, 1)
    return config.weight_near + share * (config.weight_far - config.weight_near)


def select_samples(samples: Samples, views: ViewTable, config: SelectionConfig) -> Selection:
    """`select_view` for pixels that were sampled before."""
    if not len(views):
        raise InputError("no views are stored: want at least one to select from")
    hits = count_hits(samples, views, config)
    distance_m = np.linalg.norm(views.centre_m - samples.centre_m, axis=1)
    score = hits * distance_weight(distance_m, config)
    index = int(score.argmax())
    return Selection(
        index=index, hits=int(hits[index]), num_samples=len(samples), hits_per_view=hits, score_per_view=score
    )


def select_view(
    depth_m: NDArray[np.float32], K_px: Array, T_world_camera: Array, views: ViewTable, config: SelectionConfig
) -> Selection:
    """The stored view that shows most of what a camera sees, near ones preferred.

    Args:
        depth_m: z-depth at the camera; 0, NaN or infinite where unknown. [H, W]
        K_px: its intrinsics. [3, 3]
        T_world_camera: its pose. [4, 4]
        views: at least one.
        config: where to sample and what counts.
    """
    return select_samples(sample_depth(depth_m, K_px, T_world_camera, config), views, config)


@kernel
def _count_hits(position_m, from_m, depth_m, P_px, centre_m, eps_rel, eps_abs_m, px_radius, min_cosine):
    """How many positions [S, 3] seen from `from_m` are seen in one view, too."""
    height_px, width_px = depth_m.shape
    num_hits = 0
    for k in range(len(position_m)):
        x, y, z = position_m[k, 0], position_m[k, 1], position_m[k, 2]
        depth = P_px[2, 0] * x + P_px[2, 1] * y + P_px[2, 2] * z + P_px[2, 3]
        if not depth > 0:
            continue
        u = np.rint((P_px[0, 0] * x + P_px[0, 1] * y + P_px[0, 2] * z + P_px[0, 3]) / depth)
        v = np.rint((P_px[1, 0] * x + P_px[1, 1] * y + P_px[1, 2] * z + P_px[1, 3]) / depth)
        if not (-px_radius <= u < width_px + px_radius and -px_radius <= v < height_px + px_radius):
            continue
        column, row = int(u), int(v)
        nearest = np.inf
        for i in range(max(row - px_radius, 0), min(row + px_radius + 1, height_px)):
            for j in range(max(column - px_radius, 0), min(column + px_radius + 1, width_px)):
                if depth_m[i, j] > 0:
                    nearest = min(nearest, abs(depth_m[i, j] - depth))
        if not nearest < max(eps_rel * depth, eps_abs_m):
            continue
        if min_cosine > -1:
            ax, ay, az = x - from_m[0], y - from_m[1], z - from_m[2]
            bx, by, bz = x - centre_m[0], y - centre_m[1], z - centre_m[2]
            lengths = np.sqrt((ax * ax + ay * ay + az * az) * (bx * bx + by * by + bz * bz))
            if ax * bx + ay * by + az * bz < min_cosine * lengths:
                continue
        num_hits += 1
    return num_hits
