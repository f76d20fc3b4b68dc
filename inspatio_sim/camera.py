"""Cameras and rigid motion: intrinsics, SE(3) poses, deltas, interpolation, axis conventions.

Everything inside the library uses OpenCV optical axes (x right, y down, z forward), camera-to-world
poses `T_world_camera` (`p_world = T_world_camera @ p_camera`), metres, radians, and pixel centres at
integer coordinates. A motion in the camera frame multiplies from the right: `T_new = T_old @ delta`.
Poses are float64 numpy arrays; they become tensors only where pixels are moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError

Array = NDArray[np.float64]

ROTATION_TOLERANCE = 1e-3  # how far R^T R may be from I before a matrix is refused


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point in pixels, centres at integers."""

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        values = (self.fx_px, self.fy_px, self.cx_px, self.cy_px)
        if not np.all(np.isfinite(values)):
            raise InputError(f"intrinsics {values}: want finite numbers")
        if self.fx_px <= 0 or self.fy_px <= 0:
            raise InputError(f"focal lengths fx={self.fx_px}, fy={self.fy_px} px: want them positive")
        if self.width_px < 1 or self.height_px < 1:
            raise InputError(f"image size {self.width_px}x{self.height_px} px: want at least 1x1")

    @property
    def K_px(self) -> Array:
        """The 3x3 matrix. [3, 3]"""
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1.0]])

    @classmethod
    def from_matrix(cls, K_px: ArrayLike, width_px: int, height_px: int) -> Intrinsics:
        """Read a 3x3 matrix; refuses skew, NaN and wrong shapes."""
        K = np.asarray(K_px, dtype=np.float64)
        if K.shape != (3, 3):
            raise InputError(f"K has shape {K.shape}: want a 3x3 matrix")
        if not np.all(np.isfinite(K)):
            raise InputError(f"K has NaN or inf: {K.tolist()}")
        if abs(K[0, 1]) > 1e-6 * abs(K[0, 0]) or not np.allclose(K[1:, 0], 0) or not np.allclose(K[2], [0, 0, 1]):
            raise InputError(f"K is {K.tolist()}: want [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        return cls(
            fx_px=float(K[0, 0]),
            fy_px=float(K[1, 1]),
            cx_px=float(K[0, 2]),
            cy_px=float(K[1, 2]),
            width_px=width_px,
            height_px=height_px,
        )

    @classmethod
    def from_fov(cls, horizontal_fov_rad: float, width_px: int, height_px: int) -> Intrinsics:
        """Square pixels, principal point in the middle of the image."""
        focal_px = 0.5 * width_px / np.tan(0.5 * horizontal_fov_rad)
        return cls(
            fx_px=focal_px,
            fy_px=focal_px,
            cx_px=(width_px - 1) / 2,
            cy_px=(height_px - 1) / 2,
            width_px=width_px,
            height_px=height_px,
        )

    def resized(self, width_px: int, height_px: int) -> Intrinsics:
        """The same view after the image was resized (pixel centres stay at integers)."""
        scale_x, scale_y = width_px / self.width_px, height_px / self.height_px
        return Intrinsics(
            fx_px=self.fx_px * scale_x,
            fy_px=self.fy_px * scale_y,
            cx_px=(self.cx_px + 0.5) * scale_x - 0.5,
            cy_px=(self.cy_px + 0.5) * scale_y - 0.5,
            width_px=width_px,
            height_px=height_px,
        )

    def cropped(self, left_px: int, top_px: int, width_px: int, height_px: int) -> Intrinsics:
        """The same view after cutting out a window."""
        return Intrinsics(
            fx_px=self.fx_px,
            fy_px=self.fy_px,
            cx_px=self.cx_px - left_px,
            cy_px=self.cy_px - top_px,
            width_px=width_px,
            height_px=height_px,
        )


def check_pose(T: ArrayLike, name: str = "pose") -> Array:
    """Return a rigid 4x4 float64 matrix, its rotation made exactly orthonormal; refuse anything else."""
    matrix = np.asarray(T, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"{name} has shape {matrix.shape}: want a 4x4 matrix")
    if not np.all(np.isfinite(matrix)):
        raise InputError(f"{name} has NaN or inf: want finite numbers")
    if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        raise InputError(f"{name} has last row {matrix[3].tolist()}: want [0, 0, 0, 1]")
    R = matrix[:3, :3]
    error = float(np.abs(R.T @ R - np.eye(3)).max())
    if error > ROTATION_TOLERANCE:
        raise InputError(f"{name} is no rigid motion (R^T R is {error:.3g} from the identity): want a rotation")
    if np.linalg.det(R) < 0:
        raise InputError(f"{name} is left-handed (det R = -1): want right-handed axes; flip one axis first")
    return orthonormalized(matrix)


def check_poses(poses: ArrayLike, name: str = "poses") -> Array:
    """`check_pose` for a list. [N, 4, 4]"""
    array = np.asarray(poses, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (4, 4):
        raise InputError(f"{name} has shape {array.shape}: want N x 4 x 4")
    return np.stack([check_pose(T, f"{name}[{i}]") for i, T in enumerate(array)]) if len(array) else array


def orthonormalized(T: Array) -> Array:
    """The nearest rigid motion: R replaced by its polar factor. [4, 4]"""
    U, _, Vt = np.linalg.svd(T[:3, :3])
    result = T.copy()
    result[:3, :3] = (U * [1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    result[3] = [0, 0, 0, 1]
    return result


def inverse(T: Array) -> Array:
    """Inverse of rigid motions. [..., 4, 4]"""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    result = np.zeros_like(T)
    result[..., :3, :3] = R_t
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", R_t, T[..., :3, 3])
    result[..., 3, 3] = 1.0
    return result


def pose_from(R: ArrayLike | None = None, t_m: ArrayLike | None = None) -> Array:
    """Build a 4x4 motion from a rotation and a translation, each the identity by default."""
    T = np.eye(4)
    if R is not None:
        T[:3, :3] = R
    if t_m is not None:
        T[:3, 3] = t_m
    return T
