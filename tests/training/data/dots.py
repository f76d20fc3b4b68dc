"""Pictures of a white dot, and where in a picture it is."""

import numpy as np

from inspatio_sim.motion.camera import Intrinsics, inverse


def picture(u_px: float, v_px: float, height_px: int, width_px: int) -> np.ndarray:
    """A soft dot on black. [H, W, 3]"""
    v, u = np.mgrid[:height_px, :width_px]
    light = 255 * np.exp(-((u - u_px) ** 2 + (v - v_px) ** 2) / (2 * 3.0**2))
    return np.repeat(np.round(light).astype(np.uint8)[..., None], 3, axis=2)


def position(rgb_u8: np.ndarray) -> np.ndarray:
    """Centre of the dot in pixels, (u, v). [2]"""
    light = np.where(rgb_u8[..., 1] > 20, rgb_u8[..., 1], 0).astype(float)  # video is never quite black
    v, u = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([(u * light).sum(), (v * light).sum()]) / light.sum()


def project(point: np.ndarray, T_world_camera: np.ndarray, intrinsics: Intrinsics) -> tuple[float, float]:
    """Where a camera sees a world point, (u, v)."""
    x, y, z = intrinsics.K_px @ (inverse(T_world_camera) @ [*point, 1.0])[:3]
    return x / z, y / z
