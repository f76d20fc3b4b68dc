"""Camera paths from files: three-row orbits, TUM, lists of 4x4 matrices. And TUM out.

A path is `T_start_camera`, each camera in the frame of the first one, so it can be followed from anywhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from inspatio_sim.choices import PoseConvention, Smoothing, TrajectoryFormat
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.motion.camera import Array, check_poses, interpolate_poses, inverse
from inspatio_sim.motion.orbit import Orbit

MAX_FILE_BYTES = 64 * 2**20
MAX_POSITION_M = 1e6
MAX_TIME_S = 1e12
MAX_FRAMES = 1_000_000


def load_trajectory(
    path: str | os.PathLike[str],
    num_frames: int | None = None,
    *,
    format: TrajectoryFormat | None = None,
    convention: PoseConvention | None = None,
    smoothing: Smoothing = "through",
    radius_scale: float = 1.0,
) -> Array:
    """Read a camera path.

    Without `format`, `.npy` and `.json` files and lines of 16 numbers are `matrices`, `.tum` files and
    lines of 8 numbers `tum`, any other three lines an `orbit`. Three lines of 8 or 16 numbers are ambiguous
    and need `format`. Blank lines and `#` comments are skipped.

    Args:
        path: the file.
        num_frames: how many poses to return, evenly over the path's time. By default as many as the file
            has, or as the longest row of an orbit.
        format: the format; None: detected from the content.
        convention: direction of matrices, required for them; TUM is camera-to-world by definition.
        smoothing: smoothing of an orbit. `through` passes through every keyframe and starts at the identity;
            `fitpack` is the reference implementation's smoothing spline, which does neither.
        radius_scale: metres per unit of an orbit's radius.

    Returns:
        T_start_camera. [N, 4, 4]

    Raises:
        InputError: one line that names the file.
    """
    file = Path(path)
    _check_options(file, num_frames, format, convention, radius_scale)
    data = _read_bytes(file)
    try:
        format = format or _format_of(file, data)
        if format == "orbit":
            if convention is not None:
                raise InputError(f"is an orbit: want no convention, got {convention!r}")
            orbit = parse_orbit(_text(data))
            num_frames = num_frames or orbit.num_keyframes
            return orbit.poses(num_frames, smoothing=smoothing, radius_scale=radius_scale, zoom_scale=radius_scale)
        if format == "tum":
            times_s, poses = parse_tum(_text(data))
        else:
            if convention is None:
                raise InputError(f"is a list of matrices: say convention={' or '.join(get_args(PoseConvention))}")
            poses = _parse_matrices(file, data)
            times_s = np.arange(len(poses), dtype=np.float64)
        T_world_camera = inverse(poses) if convention == "world-to-camera" else poses
        if num_frames is not None:
            T_world_camera = interpolate_poses(
                T_world_camera, times_s, np.linspace(times_s[0], times_s[-1], num_frames)
            )
        return inverse(T_world_camera[0]) @ T_world_camera
    except InputError as error:
        raise InputError(f"trajectory {file}: {error}") from None


def trajectory_format(path: str | os.PathLike[str]) -> TrajectoryFormat:
    """The format of a trajectory; raises InputError if it is unknown or ambiguous."""
    file = Path(path)
    return _format_of(file, _read_bytes(file))


def parse_orbit(text: str) -> Orbit:
    """Three rows: up angles (degrees), left angles (degrees), radii (metres)."""
    rows = _number_rows(text)
    if len(rows) != 3:
        raise InputError(f"has {len(rows)} lines: want 3 (up angles, left angles, radii)")
    return Orbit(up_deg=rows[0], left_deg=rows[1], radius_m=rows[2])


def parse_tum(text: str) -> tuple[Array, Array]:
    """Lines of `time tx ty tz qx qy qz qw`: times in seconds [N] and T_world_camera [N, 4, 4]."""
    table = _table(text, 8)
    times_s, position_m, quaternion_xyzw = table[:, 0], table[:, 1:4], table[:, 4:]
    if np.any(np.abs(times_s) > MAX_TIME_S):
        raise InputError(f"a time is beyond {MAX_TIME_S:g} s")
    if not np.all(np.diff(times_s) > 0):
        raise InputError("times do not increase from line to line")
    norms = np.linalg.norm(quaternion_xyzw, axis=1)
    if not np.all(np.abs(norms - 1) < 0.01):
        wrong = int(np.argmax(np.abs(norms - 1)))
        raise InputError(f"quaternion of pose {wrong} has length {norms[wrong]:.6g}: want 1")
    T = np.tile(np.eye(4), (len(table), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(quaternion_xyzw).as_matrix()
    T[:, :3, 3] = position_m
    return times_s, _check_positions(T)


def save_tum(path: str | os.PathLike[str], T_world_camera: ArrayLike, times_s: ArrayLike) -> None:
    """Write poses [N, 4, 4] at times [N] in TUM's format, whole or not at all."""
    poses, times = check_poses(T_world_camera, "T_world_camera"), np.asarray(times_s, dtype=np.float64)
    if times.shape != (len(poses),) or not np.all(np.isfinite(times)) or not np.all(np.diff(times) > 0):
        raise InputError(f"times_s has shape {times.shape} for {len(poses)} poses: want one per pose, increasing")
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat(canonical=True) if len(poses) else np.zeros((0, 4))
    lines = ["# timestamp tx ty tz qx qy qz qw (camera to world, OpenCV axes, metres)"]
    for time_s, T, quaternion in zip(times, poses, quaternions, strict=True):
        numbers = " ".join(f"{value:.9f}" for value in (*T[:3, 3], *quaternion))
        lines.append(f"{time_s:.9f} {numbers}")
    with replacing(Path(path)) as temporary, writing_to(Path(path)):
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check_options(
    file: Path, num_frames: int | None, format: str | None, convention: str | None, radius_scale: float
) -> None:
    if num_frames is not None and not 1 <= num_frames <= MAX_FRAMES:
        raise InputError(f"num_frames={num_frames}: want 1 to {MAX_FRAMES}")
    if format is not None and format not in get_args(TrajectoryFormat):
        raise InputError(f"format={format!r}: want one of {', '.join(get_args(TrajectoryFormat))}")
    if convention is not None and convention not in get_args(PoseConvention):
        raise InputError(f"convention={convention!r}: want one of {', '.join(get_args(PoseConvention))}")
    if not 0 < radius_scale <= MAX_POSITION_M:
        raise InputError(f"radius_scale={radius_scale}: want a positive number")


def _read_bytes(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise InputError(f"trajectory {file}: {'is not a file' if file.exists() else 'does not exist'}")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"trajectory {file}: is larger than {MAX_FILE_BYTES // 2**20} MiB")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"trajectory {file}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise InputError(f"trajectory {file}: is empty")
    return data


def _format_of(file: Path, data: bytes) -> TrajectoryFormat:
    suffix = file.suffix.lower()
    if suffix in (".npy", ".json"):
        return "matrices"
    if suffix == ".tum":
        return "tum"
    rows = _number_rows(_text(data))
    widths = {len(row) for row in rows}
    by_width: TrajectoryFormat | None = "tum" if widths == {8} else "matrices" if widths == {16} else None
    if by_width and len(rows) == 3:
        raise InputError(f"could be an orbit or {by_width}: say which with format={by_width} or format=orbit")
    if by_width:
        return by_width
    if len(rows) == 3:
        return "orbit"
    raise InputError(f"has {len(rows)} lines: want 3 (an orbit), or lines of 8 numbers (TUM) or 16 (matrices)")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("is not a text file") from None


def _number_rows(text: str) -> list[Array]:
    """The numbers of every line that has any; raises InputError on words, NaN and inf."""
    rows: list[Array] = []
    for line_number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", maxsplit=1)[0].split()
        if not words:
            continue
        try:
            row = np.array([float(word) for word in words])
        except ValueError:
            raise InputError(f"line {line_number} is {line.strip()[:40]!r}: want numbers") from None
        if not np.all(np.isfinite(row)):
            raise InputError(f"line {line_number} has NaN or inf: want finite numbers")
        rows.append(row)
    if not rows:
        raise InputError("has no numbers")
    return rows


def _table(text: str, width: int) -> Array:
    rows = _number_rows(text)
    for index, row in enumerate(rows):
        if len(row) != width:
            raise InputError(f"pose {index} has {len(row)} numbers: want {width}")
    return np.stack(rows)


def _parse_matrices(file: Path, data: bytes) -> Array:
    suffix = file.suffix.lower()
    if suffix == ".npy":
        poses = _load_npy(file)
    elif suffix == ".json":
        try:
            poses = np.array(json.loads(_text(data)), dtype=np.float64)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise InputError("is not a json list of 4x4 matrices of numbers") from None
    else:
        poses = _table(_text(data), 16).reshape(-1, 4, 4)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0:
        raise InputError(f"has shape {list(poses.shape)}: want N x 4 x 4, N at least 1")
    return _check_positions(check_poses(poses, "pose"))


def _load_npy(file: Path) -> Array:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        numeric = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
    except Exception as error:  # numpy parses the header as Python and raises many kinds of errors
        raise InputError(f"is not an npy file ({type(error).__name__})") from None
    if not numeric:
        raise InputError("is not an npy array of numbers")
    return np.array(array, dtype=np.float64)


def _check_positions(T: Array) -> Array:
    if np.any(np.abs(T[:, :3, 3]) > MAX_POSITION_M):
        raise InputError(f"a position is beyond {MAX_POSITION_M:g} m")
    return T
