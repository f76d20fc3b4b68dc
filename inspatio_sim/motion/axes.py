"""Axis conventions of other programs, to and from our OpenCV camera-to-world poses.

| convention | camera axes                  | world axes                        | pose            |
|------------|------------------------------|-----------------------------------|-----------------|
| opencv     | x right, y down, z forward   | x right, y down, z forward        | camera to world |
| opengl     | x right, y up, z backward    | x right, y up, z backward         | camera to world |
| habitat    | x right, y up, z backward    | x right, y up, z backward         | camera to world |
| ros        | x forward, y left, z up      | x forward, y left, z up (REP-103) | body to world   |
| colmap     | x right, y down, z forward   | as opencv                         | world to camera |

World axes are named as seen by a camera at the identity pose. A conversion changes camera and world
axes together, so "up" in one world is "up" in the other, and the identity stays the identity.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, check_pose, inverse, pose_from

AxisConvention = Literal["opencv", "opengl", "ros", "colmap", "habitat"]

_Y_UP = np.diag([1.0, -1.0, -1.0])
_Z_UP = np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]])
R_AXES_OPENCV: dict[AxisConvention, Array] = {
    "opencv": np.eye(3),
    "opengl": _Y_UP,
    "habitat": _Y_UP,
    "ros": _Z_UP,
    "colmap": np.eye(3),
}
"""Rotation from OpenCV coordinates to each convention's. [3, 3]"""


def convert_pose(T: ArrayLike, source: AxisConvention, target: AxisConvention) -> Array:
    """Rewrite a pose from one convention in another. [4, 4]"""
    matrix = check_pose(T, f"{source} pose")
    T_world_camera = inverse(matrix) if _check(source) == "colmap" else matrix
    T_target_source = pose_from(R_AXES_OPENCV[_check(target)] @ R_AXES_OPENCV[source].T)
    converted = T_target_source @ T_world_camera @ T_target_source.T
    return inverse(converted) if target == "colmap" else converted


def convert_points(points_m: ArrayLike, source: AxisConvention, target: AxisConvention) -> Array:
    """Rewrite points or directions, of a world or of a camera, in other axes. [..., 3]"""
    points = np.asarray(points_m, dtype=np.float64)
    if points.shape[-1:] != (3,):
        raise InputError(f"points have shape {points.shape}: want [..., 3]")
    return points @ (R_AXES_OPENCV[_check(target)] @ R_AXES_OPENCV[_check(source)].T).T


def pose_from_colmap(qvec_wxyz: ArrayLike, tvec_m: ArrayLike) -> Array:
    """`T_world_camera` from an image line of COLMAP: world-to-camera quaternion (w first) and translation."""
    qvec, tvec = np.asarray(qvec_wxyz, dtype=np.float64), np.asarray(tvec_m, dtype=np.float64)
    if qvec.shape != (4,) or tvec.shape != (3,):
        raise InputError(f"qvec has shape {qvec.shape}, tvec {tvec.shape}: want 4 and 3 numbers")
    if not (np.all(np.isfinite(qvec)) and np.linalg.norm(qvec) > 1e-6):
        raise InputError(f"qvec is {qvec.tolist()}: want a quaternion that is finite and not zero")
    R = Rotation.from_quat(np.roll(qvec, -1)).as_matrix()
    return convert_pose(pose_from(R, tvec), "colmap", "opencv")


def pose_to_colmap(T_world_camera: ArrayLike) -> tuple[Array, Array]:
    """COLMAP's (qvec_wxyz [4], tvec_m [3]), with w >= 0."""
    T_camera_world = convert_pose(T_world_camera, "opencv", "colmap")
    quaternion_xyzw = Rotation.from_matrix(T_camera_world[:3, :3]).as_quat(canonical=True)
    return np.roll(quaternion_xyzw, 1), T_camera_world[:3, 3]


def _check(convention: AxisConvention) -> AxisConvention:
    if convention not in get_args(AxisConvention):
        raise InputError(f"axis convention {convention!r}: want one of {', '.join(get_args(AxisConvention))}")
    return convention
