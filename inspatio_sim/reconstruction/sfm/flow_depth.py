"""Depth measured by triangulating dense optical flow between frames whose poses are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.motion.camera import inverse

Flow = Callable[[int, int], NDArray[np.float32]]

FLOW_NOISE_PX = 0.25  # what a pixel of dense flow is worth
MAX_EPIPOLAR_ERROR_PX = 1.0  # flow that leaves its epipolar line further is wrong, or the thing moves
MAX_RETURN_ERROR_PX = 1.0
MAX_SIGMA_SHARE = 0.2  # of the scene's median inverse depth: beyond it (at the epipole) noise looks near
MAX_RELATIVE_SIGMA = 0.3  # of inverse depth, before a measurement is of no use
NEIGHBOUR_BASELINES = (0.04, 0.1)  # wanted baselines, as a share of the scene's median depth
MAX_NEIGHBOUR_GAP = 40  # frames; further on, too little is left to match


def flow_between(grey_u8: NDArray[np.uint8]) -> Flow:
    """`flow(i, j)`: where the pixels of frame i went in frame j, in pixels. [T, H, W] -> [H, W, 2]"""
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    @lru_cache(maxsize=6 * MAX_NEIGHBOUR_GAP)
    def flow(i: int, j: int) -> NDArray[np.float32]:
        return engine.calc(grey_u8[i], grey_u8[j], None)  # pyright: ignore[reportCallIssue, reportArgumentType]

    return flow


def choose_neighbours(centres: NDArray[np.float64], frame_idx: int, median_depth: float) -> list[int]:
    """Frames before and after, the first whose baseline reaches each wanted share of the depth."""
    baselines = np.linalg.norm(centres - centres[frame_idx], axis=1) / median_depth
    chosen: list[int] = []
    for direction in (-1, 1):
        reach = [frame_idx + direction * gap for gap in range(1, MAX_NEIGHBOUR_GAP + 1)]
        reach = [j for j in reach if 0 <= j < len(centres)]
        for wanted in NEIGHBOUR_BASELINES:
            far_enough = [j for j in reach if baselines[j] >= wanted]
            if far_enough:
                chosen.append(far_enough[0])
            elif reach and baselines[reach[-1]] > 0.3 * wanted:
                chosen.append(max(reach, key=lambda j: baselines[j]))
    return sorted(set(chosen))


def measure_inverse_depth(
    frame_idx: int,
    neighbours: list[int],
    flow: Flow,
    K_px: NDArray[np.float64],
    T_world_camera: NDArray[np.float64],
    inverse_far: float,
    inverse_median: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inverse depth of one frame, from its flow to its neighbours.

    Args:
        frame_idx: the frame.
        neighbours: frames it is compared with.
        flow: see `flow_between`.
        K_px: intrinsics of the flow's images. [3, 3]
        T_world_camera: poses. [T, 4, 4]
        inverse_far: inverse depth of things far off; how exact they must be known.
        inverse_median: inverse depth of the middle of the scene.

    Returns:
        Inverse depth, and its precision (one over the relative variance), 0 where unknown. [H, W] each
    """
    inverse_depths, precisions = [], []
    for j in neighbours:
        rho, sigma = triangulate(
            flow(frame_idx, j), flow(j, frame_idx), K_px, inverse(T_world_camera[j]) @ T_world_camera[frame_idx]
        )
        limit = np.minimum(MAX_RELATIVE_SIGMA * np.maximum(rho, inverse_far), MAX_SIGMA_SHARE * inverse_median)
        is_good = np.isfinite(rho) & (sigma < limit) & (rho > -2 * sigma)
        inverse_depths.append(np.where(is_good, np.maximum(rho, 0), 0))
        precisions.append(np.where(is_good, 1 / np.maximum(sigma, 1e-9) ** 2, 0))
    return fuse(np.stack(inverse_depths), np.stack(precisions), inverse_far)


def triangulate(
    flow_forth: NDArray[np.float32],
    flow_back: NDArray[np.float32],
    K_px: NDArray[np.float64],
    T_other_camera: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inverse depth that explains a flow field best, and its standard deviation, inf where refused. [H, W] each

    A pixel with viewing ray d (d_z = 1) and inverse depth rho is seen by the other camera along
    a + rho b with a = K R d, b = K t: two linear equations in rho for the pixel it flowed to.
    """
    H, W = flow_forth.shape[:2]
    u, v = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))
    A = (K_px @ T_other_camera[:3, :3] @ np.linalg.inv(K_px)).astype(np.float32)
    b = (K_px @ T_other_camera[:3, 3]).astype(np.float32)
    a_x, a_y, a_z = (A[k, 0] * u + A[k, 1] * v + A[k, 2] for k in range(3))
    u_other, v_other = u + flow_forth[..., 0], v + flow_forth[..., 1]
    constant_x, constant_y = a_x - u_other * a_z, a_y - v_other * a_z
    slope_x, slope_y = b[0] - u_other * b[2], b[1] - v_other * b[2]
    slope_squared = np.maximum(slope_x**2 + slope_y**2, 1e-12)
    rho = -(constant_x * slope_x + constant_y * slope_y) / slope_squared
    z_ratio = a_z + rho * b[2]  # depth in the other camera over depth here: the equations' unit is pixels times it
    error_px = np.hypot(constant_x + rho * slope_x, constant_y + rho * slope_y) / np.abs(z_ratio)
    returned = cv2.remap(flow_back, u_other, v_other, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1e6)
    return_error_px = np.linalg.norm(flow_forth + returned, axis=2)
    is_good = (z_ratio > 0.1) & (error_px < MAX_EPIPOLAR_ERROR_PX) & (return_error_px < MAX_RETURN_ERROR_PX)
    noise_px = FLOW_NOISE_PX + 0.5 * (error_px + return_error_px)
    sigma = noise_px * np.abs(z_ratio) / np.sqrt(slope_squared)
    return rho, np.where(is_good, sigma, np.inf)


def fuse(
    inverse_depths: NDArray[np.float32], precisions: NDArray[np.float32], inverse_far: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted median over the neighbours, then the mean of those that agree with it.

    Args:
        inverse_depths: one image a neighbour. [N, H, W]
        precisions: one over their variances, 0 = unknown. [N, H, W]
        inverse_far: see `measure_inverse_depth`.

    Returns:
        Inverse depth, and one over its relative variance; 0 unless most neighbours agree. [H, W] each
    """
    order = np.argsort(np.where(precisions > 0, inverse_depths, np.inf), axis=0, kind="stable")
    rho = np.take_along_axis(inverse_depths, order, 0)
    weight = np.take_along_axis(precisions, order, 0)
    cumulative = np.cumsum(weight, axis=0)
    middle = np.argmax(cumulative >= 0.5 * cumulative[-1], axis=0)
    median = np.take_along_axis(rho, middle[None], 0)[0]
    scale = np.maximum(median, inverse_far)
    agrees = (weight > 0) & (np.abs(rho - median) < 0.1 * scale)
    total = np.where(agrees, weight, 0).sum(0)
    mean = np.where(agrees, weight * rho, 0).sum(0) / np.maximum(total, 1e-12)
    num_measured = (precisions > 0).sum(0)
    is_trusted = (2 * agrees.sum(0) > num_measured) & (num_measured > 0)  # a moving thing seldom fools most of them
    return mean.astype(np.float32), np.where(is_trusted, total * scale**2, 0).astype(np.float32)
