"""From poses and sparse points to depth for every pixel: measure with flow, fill guided by colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import kernel
from inspatio_sim.motion.camera import Intrinsics, inverse
from inspatio_sim.reconstruction.motion import grey_frames, grey_size
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.sfm.flow_depth import choose_neighbours, flow_between, measure_inverse_depth

MIN_FLOW_SIDE_PX = 16


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """How sparse geometry becomes depth images."""

    side_px: int = 480  # long side at which depth is measured; results are resized to the clip
    colour_sigma: float = 8.0  # grey levels (0..255) across which depth is still shared
    fill_smoothness: float = 4000.0  # lambda of the filter that fills gaps
    detail_smoothness: float = 10.0  # lambda of the filter that brings measured detail back
    far_factor: float = 3.0  # maximum depth, in multiples of the points' 95th percentile

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("side_px", "colour_sigma", "fill_smoothness", "detail_smoothness", "far_factor"):
            if not 0 < getattr(self, name) < float("inf"):  # NaN fails too
                raise InputError(f"{name}={getattr(self, name)}: want a positive, finite number")


@dataclass(frozen=True, kw_only=True)
class SparsePoints:
    """Triangulated points and their visibility in each frame."""

    xyz: NDArray[np.float64]  # world points. [N, 3]
    seen_by: list[NDArray[np.int64]]  # indices of the points in each frame's view. [T] of [n]


@dataclass(frozen=True, kw_only=True)
class DenseDepth:
    """Depth for every pixel, and how much of it was measured."""

    depth_units: NDArray[np.float32]  # [T, H, W]
    measured_share: float  # share of pixels with triangulated depth, before filling


def check_flow_size(height_px: int, width_px: int, config: DensifyConfig) -> None:
    """Refuse strips: OpenCV's flow breaks off, or the process does, where its pyramid has less than a patch a level."""
    h, w = grey_size(height_px, width_px, config.side_px)
    if min(h, w) < MIN_FLOW_SIDE_PX:
        raise InputError(
            f"frames of {width_px}x{height_px} px: want at least {MIN_FLOW_SIDE_PX} px a side for optical flow, "
            f"once the long side has been brought to {max(h, w)} px"
        )


def densify(
    frames_u8: NDArray[np.uint8],
    intrinsics: Intrinsics,
    T_world_camera: NDArray[np.float64],
    points: SparsePoints,
    config: DensifyConfig | None = None,
    progress: Callable[[float], None] | None = None,
) -> DenseDepth:
    """Depth of every frame from known poses.

    Optical flow to neighbouring frames is triangulated; things that move, or have no parallax,
    fail its checks and are filled from surroundings of similar colour. Sky and anything
    else without parallax ends at the far limit.

    Args:
        frames_u8: RGB. [T, H, W, 3]
        intrinsics: the frames' camera.
        T_world_camera: poses. [T, 4, 4]
        points: sparse anchors.
        config: see `DensifyConfig`.
        progress: called with the share done.

    Raises:
        InputError: the frames are strips too narrow for flow, or no point lies before a camera that sees it.
    """
    config = config or DensifyConfig()
    T, H, W = frames_u8.shape[:3]
    check_flow_size(H, W, config)
    grey_u8 = grey_frames(frames_u8, config.side_px)
    h, w = grey_u8.shape[1:]
    camera = intrinsics.resized(w, h)
    T_camera_world = inverse(T_world_camera)
    flow = flow_between(grey_u8)
    all_depths = np.concatenate([_depths(T_camera_world[t], points.xyz[points.seen_by[t]]) for t in range(T)])
    if not len(all_depths):
        raise InputError("none of the points lies before a camera that sees it: want geometry that fits the pictures")
    inverse_far = 1 / (config.far_factor * float(np.percentile(all_depths, 95)))
    median_depth = float(np.median(all_depths))
    depth_units = np.zeros((T, H, W), np.float32)
    num_measured = 0.0
    for t in range(T):
        neighbours = choose_neighbours(T_world_camera[:, :3, 3], t, median_depth)
        rho, precision = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
        if neighbours:
            rho, precision = measure_inverse_depth(
                t, neighbours, flow, camera.K_px, T_world_camera, inverse_far, 1 / median_depth
            )
        num_measured += float((precision > 0).mean())
        _add_points(rho, precision, T_camera_world[t], camera.K_px, points.xyz[points.seen_by[t]])
        guide_u8 = cv2.resize(frames_u8[t], (w, h), interpolation=cv2.INTER_AREA)
        filled = fill_inverse_depth(rho, precision, guide_u8, config, fallback=1 / median_depth)
        depth = 1 / np.maximum(filled, inverse_far)
        depth_units[t] = cv2.resize(depth, (W, H), interpolation=cv2.INTER_LINEAR)
        if progress:
            progress((t + 1) / T)
    return DenseDepth(depth_units=depth_units, measured_share=num_measured / T)


def _depths(T_camera_world: NDArray[np.float64], xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z of world points in front of a camera. [n]"""
    z = xyz @ T_camera_world[2, :3] + T_camera_world[2, 3]
    return z[z > 0]


def _add_points(
    rho: NDArray[np.float32],
    precision: NDArray[np.float32],
    T_camera_world: NDArray[np.float64],
    K_px: NDArray[np.float64],
    xyz: NDArray[np.float64],
) -> None:
    """Write the sparse points that a frame sees where flow measured nothing, in place."""
    h, w = rho.shape
    xyz_camera = xyz @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    xyz_camera = xyz_camera[xyz_camera[:, 2] > 0]
    projected = xyz_camera @ K_px.T
    x, y = np.rint(projected[:, :2] / projected[:, 2:]).astype(int).T
    is_wanted = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    is_wanted[is_wanted] = precision[y[is_wanted], x[is_wanted]] == 0
    x, y = x[is_wanted], y[is_wanted]
    rho[y, x] = 1 / xyz_camera[is_wanted, 2]
    precision[y, x] = POINT_PRECISION


POINT_PRECISION = 1e4  # one over the relative variance: 1 %
FULL_TRUST_PRECISION = 1e3  # measurements at least this precise have equal weight


def fill_inverse_depth(
    rho: NDArray[np.float32],
    precision: NDArray[np.float32],
    guide_u8: NDArray[np.uint8],
    config: DensifyConfig,
    fallback: float,
) -> NDArray[np.float32]:
    """Complete an inverse depth image guided by the colours of its image.

    A wide filter spreads the measurements over gaps; a narrow one restores what it blurred.

    Args:
        rho: measured inverse depth. [h, w]
        precision: its precision, 0 = unknown. [h, w]
        guide_u8: the image. [h, w, 3]
        config: the filters.
        fallback: the value if nothing is measured.
    """
    trust = np.minimum(precision / FULL_TRUST_PRECISION, 1)
    if not trust.any():
        return np.full(rho.shape, fallback, np.float32)
    wide = smooth_along_colours(np.stack([trust * rho, trust], 2), guide_u8, config.fill_smoothness, config)
    filled = wide[..., 0] / np.maximum(wide[..., 1], 1e-12)
    lost = np.where(trust > 0, rho - filled, 0)
    narrow = smooth_along_colours(np.stack([trust * lost, trust], 2), guide_u8, config.detail_smoothness, config)
    return (filled + narrow[..., 0] / (narrow[..., 1] + 0.05)).astype(np.float32)


def smooth_along_colours(
    values: NDArray[np.float32], guide_u8: NDArray[np.uint8], smoothness: float, config: DensifyConfig
) -> NDArray[np.float64]:
    """Edge-aware smoothing of every channel. [h, w, C]

    Source: Min et al., Fast Global Image Smoothing Based on Weighted Least Squares, TIP 2014, algorithm 1.
    """
    guide = guide_u8.astype(np.float32)
    across = np.exp(-np.abs(np.diff(guide, axis=1)).max(2) / config.colour_sigma).astype(np.float64)
    down = np.exp(-np.abs(np.diff(guide, axis=0)).max(2) / config.colour_sigma).astype(np.float64)
    result = np.ascontiguousarray(values, dtype=np.float64)
    for i in range(NUM_PASSES):
        pass_smoothness = 1.5 * 4.0 ** (NUM_PASSES - 1 - i) / (4.0**NUM_PASSES - 1) * smoothness
        result = _smooth_rows(result, across, pass_smoothness)
        result = _smooth_rows(result.transpose(1, 0, 2).copy(), down.T.copy(), pass_smoothness)
        result = result.transpose(1, 0, 2).copy()
    return result


NUM_PASSES = 3


@kernel
def _smooth_rows(values, weights, smoothness):  # noqa: ANN001
    """Solve (I + smoothness L) x = values along every row: a tridiagonal system each. [h, w, C], [h, w - 1]"""
    height, width, channels = values.shape
    result = np.empty_like(values)
    upper = np.empty(width)
    for y in range(height):
        left = 0.0
        for x in range(width):
            right = smoothness * weights[y, x] if x < width - 1 else 0.0
            pivot = 1.0 + left + right
            if x > 0:
                pivot += left * upper[x - 1]
            upper[x] = -right / pivot
            for c in range(channels):
                carried = left * result[y, x - 1, c] if x > 0 else 0.0
                result[y, x, c] = (values[y, x, c] + carried) / pivot
            left = right
        for x in range(width - 2, -1, -1):
            for c in range(channels):
                result[y, x, c] -= upper[x] * result[y, x + 1, c]
    return result
