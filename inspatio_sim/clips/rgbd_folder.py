"""RGB-D folders: colour, measured depth, K and poses in simple files.

    my_room/
      color/        000000.png 000001.png ...  8-bit pictures (png or jpg), all of one size
      depth/        000000.png 000001.png ...  of the same numbers and the same size, as
                    png   16-bit, depth_scale_m metres a unit (0.001 by default: millimetres)
                    npy   floating-point metres, H x W
                    exr   floating-point metres; channel Z, depth, V, Y or R
      camera.json   {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],   pixels, pixel centres at integers
                     "width": 640, "height": 480,                  the picture K is for
                     "fps": 30,                                    optional, 30 by default
                     "depth_scale_m": 0.001,                       optional, of png depth
                     "static": true}                               only if the camera never moved
      poses.json    N camera-to-world matrices of 4 x 4, one for each picture in natural order of the names
                    (OpenCV axes: x right, y down, z forward; the world's y axis points down), or poses.txt
                    with 16 numbers a line, or a folder pose/ with 000000.txt ...; none if static

Depth is along z. It is unknown where it is 0, 65535 in png, NaN, inf, negative, or at least 65504 (the largest half
float). Images, depth and poses are matched by the number in their names. Files without a partner,
frames whose pose is lost (NaN, inf, all 0) and frames without any known depth are skipped; `Clip.notes` says how
many. If the images have another size than K's width and height but the same aspect, K is scaled.

Also read: `rgb/` in place of `color/`; `intrinsics.txt` or `camera-intrinsics.txt` (a 3x3 or 4x4 matrix, or
fx fy cx cy) in place of `camera.json`, K is then for the images as stored; and all files in one
folder: frame-000000.color.jpg, .depth.png (millimetres) and .pose.txt, or pictures and 16-bit png of the same
numbers, where camera.json must have `depth_scale_m`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image

from inspatio_sim.clips.framing import MAX_FPS, MIN_FPS, ClipRequest, Framing
from inspatio_sim.clips.images import check_readable, open_image, read_image
from inspatio_sim.clips.rgbd_layout import CAMERA_NAMES, POSES_NAMES, FrameFiles, Layout, find_layout
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.motion.camera import Intrinsics, check_poses

logger = logging.getLogger(__name__)

DepthFormat = Literal["png16", "npy", "exr"]

DEFAULT_FPS = 30.0
DEFAULT_DEPTH_SCALE_M = 0.001
MEDIAN_DEPTH_M = (0.001, 1000.0)  # outside of this the unit is not metres
MAX_SIDE_PX = 1_000_000
MAX_POSITION_M = 100_000.0  # from the origin of the poses
_SATURATED = 0xFFFF  # in 16-bit png: too far, or not seen
_NOTHING_M = 65504.0  # the largest half float, or more, stands for "nothing there" in rendered depth
_EXR_DEPTH_CHANNELS = ("z", "depth", "v", "y", "r")  # in order of preference; the last part of a dotted name


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """The contents of camera.json or intrinsics.txt."""

    K_px: NDArray[np.float64]  # [3, 3]
    size_px: tuple[int, int] | None  # (height, width) that K is for; None: the images' size
    fps: float = DEFAULT_FPS
    depth_scale_m: float | None = None  # None: not given
    is_static: bool = False


def read_rgbd_folder(folder: str | Path, request: ClipRequest | None = None) -> Clip:
    """Read an RGB-D folder (layout above).

    Args:
        folder: the folder.
        request: which frames, at what size; default: all, at their own size.

    Raises:
        InputError: one line that names the file and what is wrong with it.
    """
    folder, request = Path(folder), request or ClipRequest()
    check_readable(folder)
    layout = find_layout(folder)
    camera = _read_camera(layout)
    depth_scale_m = _depth_scale_m(layout, camera)
    frames, num_lost = layout.frames()
    T_world_camera, has_pose = _read_poses(layout, frames, camera.is_static)
    if not has_pose.all():
        num_lost["lost poses"] = int((~has_pose).sum())
    if not has_pose.any():
        raise InputError(f"{folder}: the poses of all frames are lost (NaN, inf or all 0): want some")
    frames, T_world_camera = [frames[n] for n in np.flatnonzero(has_pose)], T_world_camera[has_pose]

    frame_idxs, fps = request.choose(len(frames), camera.fps, str(folder))
    frames_u8: NDArray[np.uint8] | None = None
    kept: list[int] = []
    for num_done, frame_idx in enumerate(frame_idxs, start=1):
        frame = frames[frame_idx]
        rgb_u8 = read_image(frame.color, is_upright=False)
        depth_m = _read_depth(frame.depth, depth_scale_m)
        if frames_u8 is None:
            source_size_px = (rgb_u8.shape[0], rgb_u8.shape[1])
            framing = Framing.fit(source_size_px, request.size_px)
            shape = (len(frame_idxs), *framing.size_px)
            request.check_memory(np.prod(shape) * 7.0, str(folder))  # 3 bytes of colour and 4 of depth
            frames_u8, depths_m = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
        _check_size(frame.color, rgb_u8, source_size_px, f"{frames[frame_idxs[0]].color.name} has")
        _check_size(frame.depth, depth_m, source_size_px, "the colour images have")
        if depth_m.any():
            frames_u8[len(kept)], depths_m[len(kept)] = framing.color(rgb_u8), framing.depth(depth_m)
            kept.append(frame_idx)
        request.report(num_done, len(frame_idxs))
    assert frames_u8 is not None, "choose() returns at least one index"
    if not kept:
        raise InputError(f"{folder}: depth is unknown everywhere ({frames[0].depth.name}, ...): want some known depth")
    if len(kept) < len(frame_idxs):
        num_lost["frames without known depth"] = len(frame_idxs) - len(kept)
    return Clip(
        frames_u8=frames_u8[: len(kept)],
        fps=fps,
        start_frame=request.start_frame,
        source=str(folder),
        depth_m=depths_m[: len(kept)],
        intrinsics=framing.intrinsics(_intrinsics(camera, source_size_px, folder)),
        T_world_camera=T_world_camera[kept],
        notes=_notes(folder, num_lost),
    )


def read_depth(path: Path, png_scale_m: float = DEFAULT_DEPTH_SCALE_M) -> NDArray[np.float32]:
    """Read one depth image in metres, 0 where unknown; raise InputError if none is known. [H, W]"""
    depth_m = _read_depth(path, png_scale_m)
    if not depth_m.any():
        raise InputError(f"{path}: depth is unknown everywhere: want at least some known depth")
    return depth_m


def write_rgbd_folder(folder: str | Path, clip: Clip, depth_format: DepthFormat = "png16") -> None:
    """Write a clip with depth, K and poses as a new folder (layout above), whole or not at all.

    png16 rounds depth to whole millimetres, up to 65.534 m; npy and exr are exact.
    """
    folder = Path(folder)
    if depth_format not in get_args(DepthFormat):
        raise InputError(f"depth_format={depth_format!r}: want one of {', '.join(get_args(DepthFormat))}")
    if clip.depth_m is None or clip.intrinsics is None or clip.T_world_camera is None:
        raise InputError("the clip lacks depth, intrinsics or poses: want all three")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder}: exists already: want a new or empty folder")
    camera = {
        "K": clip.intrinsics.K_px.tolist(),
        "width": clip.intrinsics.width_px,
        "height": clip.intrinsics.height_px,
        "fps": clip.fps,
        "depth_scale_m": DEFAULT_DEPTH_SCALE_M,
    }
    with replacing(folder) as temporary, writing_to(folder):
        (temporary / "color").mkdir(parents=True)
        (temporary / "depth").mkdir()
        for n, (rgb_u8, depth_m) in enumerate(zip(clip.frames_u8, clip.depth_m, strict=True)):
            Image.fromarray(rgb_u8).save(temporary / "color" / f"{n:06d}.png", compress_level=3)
            _write_depth(temporary / "depth" / f"{n:06d}", depth_m, depth_format)
        (temporary / "camera.json").write_text(json.dumps(camera, indent=1) + "\n")
        (temporary / "poses.json").write_text(json.dumps(clip.T_world_camera.tolist()) + "\n")


# The camera


def _read_camera(layout: Layout) -> _Camera:
    path = next((path for name in CAMERA_NAMES if (path := layout.folder / name).is_file()), None)
    if path is None:
        want = "camera.json with K, width and height" + ("" if layout.has_known_unit else ", and depth_scale_m")
        raise InputError(
            f"{layout.folder}: no camera.json for colour ({layout.color[0].name}, ...) with depth "
            f"({layout.depth[0].name}, ...): want {want}; for the pictures alone, a folder without depth"
        )
    if path.suffix == ".txt":
        return _Camera(K_px=_matrix_from_numbers(path), size_px=None)
    values = _read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: want an object with the keys K, width and height")
    missing = [key for key in ("K", "width", "height") if key not in values]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing: want K, width and height")
    is_static = values.get("static", False)
    if not isinstance(is_static, bool):
        raise InputError(f"{path}: static is {is_static!r}: want true or false")
    return _Camera(
        K_px=_checked_K(_number_array(values["K"], path, "K"), path),
        size_px=(_size_in_px(values["height"], path, "height"), _size_in_px(values["width"], path, "width")),
        fps=_number_between(MIN_FPS, MAX_FPS, values.get("fps", DEFAULT_FPS), path, "fps"),
        depth_scale_m=_number_between(1e-9, 1e3, values["depth_scale_m"], path, "depth_scale_m")
        if "depth_scale_m" in values
        else None,
        is_static=is_static,
    )


def _depth_scale_m(layout: Layout, camera: _Camera) -> float:
    """Metres of a unit of png depth."""
    if camera.depth_scale_m is not None:
        return camera.depth_scale_m
    if not layout.has_known_unit and any(path.suffix.lower() == ".png" for path in layout.depth):
        raise InputError(
            f"{layout.folder}: depth beside the colour images ({layout.depth[0].name}): want depth_scale_m in "
            "camera.json, the metres of one unit (0.001 for millimetres)"
        )
    return DEFAULT_DEPTH_SCALE_M


def _matrix_from_numbers(path: Path) -> NDArray[np.float64]:
    """K from a 3x3 or 4x4 matrix (its upper left part), or from fx fy cx cy."""
    numbers = _read_numbers(path)
    if numbers.size == 4:
        fx, fy, cx, cy = numbers
        numbers = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1])
    if numbers.size not in (9, 16):
        raise InputError(f"{path}: {numbers.size} numbers: want a 3x3 or 4x4 matrix, or fx fy cx cy")
    side = 3 if numbers.size == 9 else 4
    return _checked_K(numbers.reshape(side, side)[:3, :3], path)


def _checked_K(K_px: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    try:
        Intrinsics.from_matrix(K_px, width_px=1, height_px=1)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return K_px


def _intrinsics(camera: _Camera, size_px: tuple[int, int], folder: Path) -> Intrinsics:
    """K of the pictures as they are in the folder."""
    height_px, width_px = size_px
    K_height_px, K_width_px = camera.size_px or size_px
    if abs(K_width_px * height_px - K_height_px * width_px) > max(K_width_px, K_height_px, width_px, height_px):
        raise InputError(
            f"{folder / 'camera.json'}: K is for {K_width_px}x{K_height_px} px, but the colour images have "
            f"{width_px}x{height_px}: want the same size, or at least the same aspect"
        )
    return Intrinsics.from_matrix(camera.K_px, K_width_px, K_height_px).resized(width_px, height_px)


# Poses


def _read_poses(
    layout: Layout, frames: Sequence[FrameFiles], is_static: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Camera-to-world matrices of the frames [N, 4, 4], and a mask of known ones. [N]"""
    folder = layout.folder
    found = [path for name in POSES_NAMES if (path := folder / name).is_file()]
    came = (
        [path.name for path in found] + ["static: true"] * is_static + [f"{path.name} ..." for path in layout.pose[:1]]
    )
    if len(came) != 1:
        raise InputError(
            f"{folder}: poses: {', '.join(came) or 'none'}: want one of poses.json, poses.txt, a folder pose/ "
            'and "static": true in camera.json'
        )
    if is_static:
        return np.tile(np.eye(4), (len(frames), 1, 1)), np.ones(len(frames), bool)
    if layout.pose:
        files = [frame.pose for frame in frames if frame.pose]
        poses = [_read_matrices(path, 1) for path in files]
        checked = [_checked_poses(pose, f"{path}: pose") for path, pose in zip(files, poses, strict=True)]
        return np.concatenate([pose for pose, _ in checked]), np.concatenate([is_known for _, is_known in checked])
    path = found[0]
    if path.suffix == ".json":
        poses = _number_array(_read_json(path), path, "poses")
    else:
        poses = _read_matrices(path)
    T_world_camera, is_known = _checked_poses(poses, f"{path}: pose")
    if len(poses) != len(layout.color):
        raise InputError(f"{path}: {len(poses)} poses for {len(layout.color)} colour images: want one each")
    idxs = [frame.idx for frame in frames]
    return T_world_camera[idxs], is_known[idxs]


def _read_matrices(path: Path, num_poses: int | None = None) -> NDArray[np.float64]:
    numbers = _read_numbers(path)
    if numbers.size % 16 or (num_poses and numbers.size != 16 * num_poses):
        raise InputError(f"{path}: {numbers.size} numbers: want 16 for each frame")
    return numbers.reshape(-1, 4, 4)


def _checked_poses(poses: NDArray[np.float64], name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The poses, with lost ones replaced by the identity, and a mask of known ones."""
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise InputError(f"{name} has shape {poses.shape}: want N x 4 x 4")
    is_known = np.isfinite(poses).all(axis=(1, 2)) & (poses != 0).any(axis=(1, 2))
    poses = np.where(is_known[:, None, None], poses, np.eye(4))
    poses = check_poses(poses, name)
    if len(poses) and (way_m := np.abs(poses[:, :3, 3]).max()) > MAX_POSITION_M:
        raise InputError(
            f"{name.removesuffix(': pose')}: a camera is {way_m:.4g} m from the origin: want at most "
            f"{MAX_POSITION_M:g} m, subtract the first position from all"
        )
    return poses, is_known


# Files


def _notes(folder: Path, num_lost: dict[str, int]) -> tuple[str, ...]:
    """Log and return one sentence about the skipped files."""
    if not num_lost:
        return ()
    note = f"left out: {', '.join(f'{reason} ({number})' for reason, number in num_lost.items())}"
    logger.warning("%s: %s", folder, note)
    return (note,)


def _read_depth(path: Path, png_scale_m: float) -> NDArray[np.float32]:
    """One depth image in metres, 0 where unknown (possibly everywhere). [H, W]"""
    check_readable(path)
    if path.suffix.lower() == ".png":
        image = open_image(path)
        if not image.mode.startswith("I"):
            raise InputError(f"{path}: depth png of mode {image.mode}: want one 16-bit channel")
        units = np.asarray(image)
        depth_m = np.where(units == _SATURATED, 0, units).astype(np.float32) * np.float32(png_scale_m)
    elif path.suffix.lower() == ".npy":
        depth_m = _read_npy(path)
    else:
        depth_m = _read_exr(path)
    is_known = (depth_m > 0) & (depth_m < _NOTHING_M)  # NaN is neither
    below_m = depth_m[np.isfinite(depth_m) & (depth_m < 0)]
    if not is_known.any() and below_m.size and below_m.min() < below_m.max():  # not just a value for "unknown"
        raise InputError(f"{path}: all depth is negative (lowest {below_m.min():.4g} m): want metres in front")
    depth_m = np.where(is_known, depth_m, np.float32(0))
    if is_known.any():
        median_m = float(np.median(depth_m[is_known]))
        if not MEDIAN_DEPTH_M[0] <= median_m <= MEDIAN_DEPTH_M[1]:
            raise InputError(f"{path}: the median depth is {median_m:.4g} m: want metres (or depth_scale_m of the png)")
    return depth_m


def _check_size(path: Path, image: NDArray, size_px: tuple[int, int], others: str) -> None:
    if image.shape[:2] != size_px:
        came = f"{image.shape[1]}x{image.shape[0]}"
        raise InputError(f"{path}: {came} px, but {others} {size_px[1]}x{size_px[0]}: want one size")


def _read_npy(path: Path) -> NDArray[np.float32]:
    try:
        depth = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a false header takes no memory
    except Exception as error:  # numpy parses the header as Python and raises many kinds of errors
        raise InputError(f"{path}: not a plain numpy array that can be read") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.size == 0 or depth.dtype.kind != "f":
        came = f"{depth.dtype} {depth.shape}" if isinstance(depth, np.ndarray) else "an archive"
        raise InputError(f"{path}: {came}: want floating-point metres, H x W")
    with np.errstate(over="ignore"):  # an overflow becomes inf, which raises below
        return np.array(depth, dtype=np.float32)


def _read_exr(path: Path) -> NDArray[np.float32]:
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            pixels = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not an EXR image that can be read") from error
    rank = {name: name.rsplit(".", 1)[-1].lower() for name in pixels}
    named = [name for wanted in _EXR_DEPTH_CHANNELS for name in sorted(pixels) if rank[name] == wanted]
    if not named:
        raise InputError(f"{path}: channels {', '.join(sorted(pixels))}: want depth in Z, depth, V, Y or R")
    return np.asarray(pixels[named[0]], dtype=np.float32)


def _write_depth(stem: Path, depth_m: NDArray[np.float32], depth_format: DepthFormat) -> None:
    if depth_format == "npy":
        np.save(stem.with_suffix(".npy"), depth_m.astype(np.float32, copy=False))
    elif depth_format == "exr":
        path = stem.with_suffix(".exr")
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"Z": np.ascontiguousarray(depth_m, dtype=np.float32)}) as file:
            file.write(str(path))
    else:
        units = np.round(depth_m / DEFAULT_DEPTH_SCALE_M)
        if units.max() >= _SATURATED:
            raise InputError(f"depth of {depth_m.max():.5g} m does not fit png16 (up to 65.534 m): want npy")
        units[depth_m > 0] = np.maximum(units[depth_m > 0], 1)  # known stays known
        Image.fromarray(units.astype(np.uint16)).save(stem.with_suffix(".png"), compress_level=3)


def _read_text(path: Path) -> str:
    check_readable(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file that can be read") from error


def _read_json(path: Path) -> Any:
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error


def _read_numbers(path: Path) -> NDArray[np.float64]:
    """All numbers of a text file, separated by spaces, commas or line ends. [N]"""
    try:
        return np.array([float(word) for word in _read_text(path).replace(",", " ").split()])
    except ValueError as error:
        raise InputError(f"{path}: want numbers only: {error}") from error


def _number_array(values: Any, path: Path, name: str) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: {name} is not a matrix of numbers") from error


def _number_between(least: float, most: float, value: Any, path: Path, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:  # NaN fails too
        raise InputError(f"{path}: {name} is {_short(value)}: want a number from {least:g} to {most:g}")
    return float(value)


def _size_in_px(value: Any, path: Path, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE_PX:
        raise InputError(f"{path}: {name} is {_short(value)}: want a whole number of pixels from 1 to {MAX_SIDE_PX}")
    return value


def _short(value: Any) -> str:
    """Shorten to a line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
