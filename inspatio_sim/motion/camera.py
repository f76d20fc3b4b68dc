"""Cameras and rigid motion: intrinsics, SE(3) poses, deltas, interpolation, paths.

Everything inside the library uses OpenCV optical axes (x right, y down, z forward), camera-to-world
poses `T_world_camera` (`p_world = T_world_camera @ p_camera`), metres, radians, and pixel centres at
integer coordinates. A motion in the camera frame multiplies from the right: `T_new = T_old @ delta`.
Poses are float64 numpy arrays; they become tensors only where pixels are moved. `axes.py` converts to other
axes.

A rigid motion T is also written as its exponential coordinates, or twist, [vx vy vz wx wy wz]: the
constant velocity (metres, radians; in the moving frame) that performs T in one unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from inspatio_sim.errors import InputError

Array = NDArray[np.float64]

LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])
LAST_ROW_TOLERANCE = 1e-6  # maximum deviation of the last row of a pose
ROTATION_TOLERANCE = 1e-3  # maximum deviation of R^T R from I
MAX_STEP_M = 10.0  # a longer motion in one step is a mistake, not a motion
MAX_STEP_RAD = 2 * np.pi
MAX_FOCAL_PX = 1e6
MAX_SLOPE = 57.0  # maximum slope of a ray, sideways over forward: 89 degrees off the axis


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
        if max(self.fx_px, self.fy_px) > MAX_FOCAL_PX:
            raise InputError(f"focal lengths fx={self.fx_px}, fy={self.fy_px} px: want at most {MAX_FOCAL_PX:g} px")
        if self.width_px < 1 or self.height_px < 1:
            raise InputError(f"image size {self.width_px}x{self.height_px} px: want at least 1x1")
        for axis, focal_px, centre_px, side_px in (
            ("x", self.fx_px, self.cx_px, self.width_px),
            ("y", self.fy_px, self.cy_px, self.height_px),
        ):
            if max(abs(centre_px), abs(side_px - 1 - centre_px)) > MAX_SLOPE * focal_px:
                raise InputError(
                    f"f{axis}={focal_px} px with c{axis}={centre_px} px: the image's edge would be "
                    "more than 89 degrees off the axis: want a larger focal length"
                )

    @property
    def K_px(self) -> Array:
        """The 3x3 matrix. [3, 3]"""
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1.0]])

    @classmethod
    def from_matrix(cls, K_px: ArrayLike, width_px: int, height_px: int) -> Intrinsics:
        """Read a 3x3 matrix; raises InputError on skew, NaN and wrong shapes."""
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

    def centred(self, width_px: int, height_px: int) -> Intrinsics:
        """The same view at another size, if the image was exactly twice its principal point, which moves to the middle.

        This is how the public InSpatio-World implementation scales K, for any size the image really has.
        """
        return Intrinsics(
            fx_px=self.fx_px * width_px / (2 * self.cx_px),
            fy_px=self.fy_px * height_px / (2 * self.cy_px),
            cx_px=width_px / 2,
            cy_px=height_px / 2,
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
    """Return a rigid 4x4 float64 matrix, its rotation made exactly orthonormal; raise InputError for anything else."""
    try:
        matrix = np.asarray(T, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {T!r}: want a 4x4 matrix of numbers") from error
    if matrix.shape != (4, 4):
        raise InputError(f"{name} has shape {matrix.shape}: want a 4x4 matrix")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} has NaN or inf: want finite numbers")
    if np.abs(matrix[3] - LAST_ROW).max() > LAST_ROW_TOLERANCE:
        raise InputError(f"{name} has last row {matrix[3].tolist()}: want [0, 0, 0, 1]")
    R = matrix[:3, :3]
    error = float(np.abs(R.T @ R - np.eye(3)).max())
    if error > ROTATION_TOLERANCE:
        raise InputError(f"{name} is not a rigid motion (R^T R is {error:.3g} from the identity): want a rotation")
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
    result[..., :3, 3:] = -(R_t @ T[..., :3, 3:])
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


def skew(v: Array) -> Array:
    """The matrix of the cross product: `skew(v) @ u = v x u`. [..., 3] -> [..., 3, 3]"""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*v.shape, 3)


def se3_exp(twist: Array) -> Array:
    """The motion that a twist performs in one unit of time. [..., 6] -> [..., 4, 4]

    Source: Barfoot, State Estimation for Robotics (2017), 7.1.3.
    """
    linear, angular = twist[..., :3], twist[..., 3:]
    theta = np.linalg.norm(angular, axis=-1)[..., None, None]
    K = skew(angular)
    A = np.sinc(theta / np.pi)  # sin(theta) / theta
    B = 0.5 * np.sinc(0.5 * theta / np.pi) ** 2  # (1 - cos(theta)) / theta^2
    C = (1 - A) / np.maximum(theta, 1e-12) ** 2
    T = np.zeros((*twist.shape[:-1], 4, 4))
    T[..., :3, :3] = np.eye(3) + A * K + B * K @ K
    T[..., :3, 3] = np.einsum("...ij,...j->...i", np.eye(3) + B * K + C * K @ K, linear)
    T[..., 3, 3] = 1.0
    return T


def se3_log(T: Array) -> Array:
    """The twist with the smallest rotation (at most pi) that performs T. [..., 4, 4] -> [..., 6]"""
    angular = Rotation.from_matrix(T[..., :3, :3].reshape(-1, 3, 3)).as_rotvec().reshape(*T.shape[:-2], 3)
    theta = np.linalg.norm(angular, axis=-1)[..., None, None]
    K = skew(angular)
    A, B = np.sinc(theta / np.pi), 0.5 * np.sinc(0.5 * theta / np.pi) ** 2
    D = (1 - 0.5 * A / B) / np.maximum(theta, 1e-12) ** 2
    linear = np.einsum("...ij,...j->...i", np.eye(3) - 0.5 * K + D * K @ K, T[..., :3, 3])
    return np.concatenate([linear, angular], axis=-1)


@dataclass(frozen=True, eq=False)
class PoseDelta:
    """A rigid motion in the current camera frame: `T_world_new = T_world_old @ delta.T_old_new`.

    Kept as a twist, so that 270 degrees to the left do not become 90 to the right.
    Refuses NaN, inf, more than 10 m and more than 2 pi rad.
    """

    twist: Array  # metres and radians. [6]
    T_old_new: Array = field(init=False)  # [4, 4]

    def __post_init__(self) -> None:
        twist = np.array(self.twist, dtype=np.float64)
        if twist.shape != (6,):
            raise InputError(f"twist has shape {twist.shape}: want 6 numbers")
        if not np.all(np.isfinite(twist)):
            raise InputError(f"motion {twist.tolist()} has NaN or inf: want finite numbers")
        T_old_new = se3_exp(twist)
        angle_rad, distance_m = np.linalg.norm(twist[3:]), np.linalg.norm(T_old_new[:3, 3])
        if not angle_rad <= MAX_STEP_RAD * (1 + 1e-9):
            raise InputError(f"turn of {angle_rad:.6g} rad in one step: want at most 2 pi")
        if not distance_m <= MAX_STEP_M * (1 + 1e-9):
            raise InputError(f"motion of {distance_m:.6g} m in one step: want at most {MAX_STEP_M:g} m")
        for name, value in (("twist", twist), ("T_old_new", T_old_new)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def identity(cls) -> PoseDelta:
        """Stand still."""
        return cls(np.zeros(6))

    @classmethod
    def from_matrix(cls, T_old_new: ArrayLike) -> PoseDelta:
        """The shortest motion to a pose in the current camera frame; the pose must be rigid. [4, 4]"""
        return cls(se3_log(check_pose(T_old_new, "motion")))

    @classmethod
    def from_twist(cls, linear_mps: ArrayLike, angular_radps: ArrayLike, duration_s: float) -> PoseDelta:
        """Constant velocity in the camera frame (x right, y down, z forward): an arc if it turns. [3], [3]"""
        linear, angular = (np.asarray(value, dtype=np.float64) for value in (linear_mps, angular_radps))
        if linear.shape != (3,) or angular.shape != (3,):
            raise InputError(f"velocities have shapes {linear.shape} and {angular.shape}: want 3 numbers each")
        if not (np.isfinite(duration_s) and duration_s >= 0):
            raise InputError(f"duration of {duration_s} s: want a finite number, not negative")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow raises below
            twist = np.concatenate([linear, angular]) * duration_s
            way_m = np.linalg.norm(twist[:3])
        if way_m > MAX_STEP_M * (1 + 1e-9):  # a full circle is long although it ends where it began
            raise InputError(f"motion of {way_m:.6g} m in one step: want at most {MAX_STEP_M:g} m")
        return cls(twist)

    @property
    def distance_m(self) -> float:
        """Length of the arc, not of its chord."""
        return float(np.linalg.norm(self.twist[:3]))

    @property
    def angle_rad(self) -> float:
        return float(np.linalg.norm(self.twist[3:]))

    def part(self, share: float) -> PoseDelta:
        """The first `share` (0..1) of this motion, along the same path."""
        if not 0 <= share <= 1:
            raise InputError(f"share={share}: want 0 to 1")
        return PoseDelta(share * self.twist)

    def inverse(self) -> PoseDelta:
        """The reverse motion along the same path."""
        return PoseDelta(-self.twist)

    def then(self, other: PoseDelta) -> PoseDelta:
        """This motion followed by `other`, as one shortest motion."""
        return PoseDelta.from_matrix(self.T_old_new @ other.T_old_new)

    def __matmul__(self, other: PoseDelta) -> PoseDelta:
        return self.then(other)


def interpolate(T_start: Array, delta: PoseDelta, num_frames: int) -> Array:
    """The camera at each frame of a block, along the SE(3) geodesic; the last one completes `delta`.

    Args:
        T_start: camera pose before the block. [4, 4]
        delta: the motion of the whole block.
        num_frames: F, at least 1.

    Returns:
        Camera poses. [F, 4, 4]
    """
    if num_frames < 1:
        raise InputError(f"num_frames={num_frames}: want at least 1")
    if num_frames == 1:
        return (T_start @ delta.T_old_new)[None]
    shares = np.arange(1, num_frames + 1) / num_frames
    T_start_frame = se3_exp(shares[:, None] * delta.twist)
    T_start_frame[-1] = delta.T_old_new
    return T_start @ T_start_frame


def interpolate_poses(poses: ArrayLike, times_s: ArrayLike, query_times_s: ArrayLike) -> Array:
    """Poses between known poses: rotations by slerp, positions on straight lines; the ends are held.

    Args:
        poses: known poses. [N, 4, 4]
        times_s: their times, increasing. [N]
        query_times_s: [M]

    Returns:
        [M, 4, 4]
    """
    known = check_poses(poses)
    times, queries = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (times_s, query_times_s))
    if len(known) < 1 or times.shape != (len(known),) or queries.ndim != 1:
        raise InputError(f"{len(known)} poses, times {times.shape}, queries {queries.shape}: want N >= 1, N and M")
    if not (np.all(np.isfinite(times)) and np.all(np.isfinite(queries)) and np.all(np.diff(times) > 0)):
        raise InputError("times of poses: want finite numbers, the known ones strictly increasing")
    if len(known) == 1:
        return np.repeat(known, len(queries), axis=0)
    queries = np.clip(queries, times[0], times[-1])
    result = np.zeros((len(queries), 4, 4))
    result[:, :3, :3] = Slerp(times, Rotation.from_matrix(known[:, :3, :3]))(queries).as_matrix()
    for axis in range(3):
        result[:, axis, 3] = np.interp(queries, times, known[:, axis, 3])
    result[:, 3, 3] = 1.0
    return result


class CameraPath:
    """The accumulated pose of the camera; its rotation stays orthonormal over any number of motions."""

    def __init__(self, T_world_camera: ArrayLike | None = None) -> None:
        self.T_world_camera = np.eye(4) if T_world_camera is None else check_pose(T_world_camera, "start pose")

    def advance(self, delta: PoseDelta, num_frames: int = 1) -> Array:
        """Move by `delta` over `num_frames` frames; returns the pose at each. [F, 4, 4]"""
        T_world_camera = interpolate(self.T_world_camera, delta, num_frames)
        # One Newton step to the polar factor squares the rounding error away (an SVD costs four times as much).
        R = T_world_camera[-1, :3, :3]
        T_world_camera[-1, :3, :3] = 1.5 * R - 0.5 * R @ (R.T @ R)
        self.T_world_camera = T_world_camera[-1].copy()
        return T_world_camera

    def state(self) -> dict[str, Array]:
        """Everything needed to continue bit-exactly."""
        return {"T_world_camera": self.T_world_camera.copy()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Continue from `state()`, bit-exactly: nothing is orthonormalised here."""
        check_pose(state["T_world_camera"], "saved camera pose")
        self.T_world_camera = np.array(state["T_world_camera"], dtype=np.float64)
