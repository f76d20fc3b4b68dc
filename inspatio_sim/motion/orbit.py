"""The three-row orbit of a camera around a point ahead of it: keyframes in, poses out.

`smoothing="through"` is ours: the curve passes through every keyframe without overshoot, and the first
pose is the identity. `smoothing="fitpack"` computes what the public InSpatio-World implementation does (a
smoothing spline that misses the keyframes, and no first identity), as do `target_poses` and
`bounce_indices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator, UnivariateSpline
from scipy.spatial.transform import Rotation

from inspatio_sim.choices import Smoothing
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, inverse

MAX_ANGLE_DEG = 3600.0
MAX_RADIUS_M = 1000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Orbit:
    """Keyframes of an orbit. Rows may differ in length; each is spread evenly over the whole path."""

    up_deg: Array  # elevation around the centre. [K1]
    left_deg: Array  # angle to the left around the centre. [K2]
    radius_m: Array  # distance to the centre, or, if no angle changes, distance forward. [K3]

    def __post_init__(self) -> None:
        limits = {"up_deg": MAX_ANGLE_DEG, "left_deg": MAX_ANGLE_DEG, "radius_m": MAX_RADIUS_M}
        for name, limit in limits.items():
            row = np.array(getattr(self, name), dtype=np.float64)
            if row.ndim != 1 or len(row) == 0:
                raise InputError(f"orbit row {name} has shape {row.shape}: want at least one keyframe")
            if not np.all(np.abs(row) <= limit):
                raise InputError(f"orbit row {name} has a value that is NaN or beyond {limit:g}")
            object.__setattr__(self, name, row)

    @property
    def num_keyframes(self) -> int:
        """Number of keyframes in the longest row."""
        return max(len(self.up_deg), len(self.left_deg), len(self.radius_m))

    def poses(
        self,
        num_frames: int,
        *,
        smoothing: Smoothing = "through",
        radius_scale: float = 1.0,
        zoom_scale: float = 1.0,
        rotation_only: bool = False,
    ) -> Array:
        """The camera at `num_frames` even times.

        Args:
            num_frames: N, at least 1.
            smoothing: how rows are interpolated, see the module.
            radius_scale: multiplies the radius of an orbit that turns left or right.
            zoom_scale: multiplies the radius of one that does not.
            rotation_only: stay in place, turn only (moving straight ahead still moves).

        Returns:
            T_start_camera: camera to the frame of the starting camera. [N, 4, 4]
        """
        up_deg, left_deg, radius_m = (
            sample_row(row, num_frames, smoothing) for row in (self.up_deg, self.left_deg, self.radius_m)
        )
        if smoothing == "fitpack" and len(self.radius_m) > 3:
            radius_m[0], radius_m[-1] = self.radius_m[0], self.radius_m[-1]
        never_left, never_up = bool(np.all(left_deg == 0)), bool(np.all(up_deg == 0))
        radius_m = radius_m * (zoom_scale if never_left else radius_scale)
        if smoothing == "fitpack":  # the reference implementation computes angles and positions in float32
            up_deg, left_deg, radius_m = (row.astype(np.float32) for row in (up_deg, left_deg, radius_m))

        up_rad, left_rad = np.deg2rad(up_deg), np.deg2rad(left_deg)
        cos_a, sin_a, cos_b, sin_b = np.cos(up_rad), np.sin(up_rad), np.cos(left_rad), np.sin(left_rad)
        position_m = np.stack(
            [-radius_m * cos_a * sin_b, -radius_m * sin_a, radius_m - radius_m * cos_a * cos_b], axis=-1
        )
        T = np.tile(np.eye(4), (num_frames, 1, 1))
        T[:, :3, :3] = Rotation.from_euler("YX", np.stack([left_rad, -up_rad], axis=-1)).as_matrix()
        if never_left and never_up:
            T[:, 2, 3] = radius_m  # no turn: move straight ahead
        elif not rotation_only:
            T[:, :3, 3] = position_m
        return T if smoothing == "fitpack" else inverse(T[0]) @ T


def sample_row(keyframes: ArrayLike, num_samples: int, smoothing: Smoothing = "through") -> Array:
    """Sample keyframes, spread evenly over [0, 1], at even positions from 0 to 1. [K] -> [N]"""
    if smoothing not in get_args(Smoothing):
        raise InputError(f"smoothing={smoothing!r}: want one of {', '.join(get_args(Smoothing))}")
    if num_samples < 1:
        raise InputError(f"num_frames={num_samples}: want at least 1")
    row = np.asarray(keyframes, dtype=np.float64)
    positions, queries = np.linspace(0, 1, len(row)), np.linspace(0, 1, num_samples)
    if len(row) < 3 or (smoothing == "fitpack" and len(row) == 3):
        return np.interp(queries, positions, row)
    if smoothing == "fitpack":
        return np.asarray(UnivariateSpline(positions, row, k=3)(queries))  # smoothing target: the number of keyframes
    with np.errstate(over="ignore"):  # slopes next to zero have an infinite inverse, which is handled there
        return PchipInterpolator(positions, row)(queries)


def target_poses(T_world_source: ArrayLike, T_start_camera: ArrayLike, *, follow_source: bool) -> Array:
    """The target cameras of a clip in the reference implementation.

    Args:
        T_world_source: cameras of the clip, S_i. [N, 4, 4]
        T_start_camera: a trajectory of as many poses, T_i. [N, 4, 4]
        follow_source: False: S_0^-1 T_i ("absolute"). True: S_0^-1 S_i S_0^-1 T_i ("relative").

    Returns:
        [N, 4, 4]
    """
    S, T = np.asarray(T_world_source, dtype=np.float64), np.asarray(T_start_camera, dtype=np.float64)
    if S.shape != T.shape or S.shape[1:] != (4, 4) or len(S) == 0:
        raise InputError(f"source poses {S.shape}, trajectory {T.shape}: want N x 4 x 4 both")
    T_source0_world = inverse(S[0])
    absolute = T_source0_world @ T
    return T_source0_world @ S @ absolute if follow_source else absolute


def bounce_indices(num_source: int, num_wanted: int) -> np.ndarray:
    """Indices of `num_source` frames for `num_wanted`: forward, back, forward; evenly spaced if there are enough."""
    if num_source < 1 or num_wanted < 0:
        raise InputError(f"{num_source} frames for {num_wanted}: want at least 1 for at least 0")
    if num_wanted <= num_source:
        return np.linspace(0, num_source - 1, num_wanted).astype(np.int64)
    period = max(2 * (num_source - 1), 1)
    phase = np.arange(num_wanted) % period
    return np.minimum(phase, period - phase) if num_source > 1 else phase
