"""RGB-D folders: colour, measured depth, K and poses in files that a person can make by hand.

    my_room/
      color/        000000.png 000001.png ...  8-bit pictures (png or jpg), all of one size
      depth/        000000.png 000001.png ...  one for each picture, of the same size, as
                    png   16-bit, depth_scale_m metres a unit (0.001 by default: millimetres)
                    npy   floating-point metres, H x W
                    exr   floating-point metres; channel Z, depth, V, Y or R
      camera.json   {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],   pixels, pixel centres at integers
                     "width": 640, "height": 480,                  the picture K is for
                     "fps": 30,                                    optional, 30 by default
                     "depth_scale_m": 0.001,                       optional, of png depth
                     "static": true}                               only if the camera never moved
      poses.json    N camera-to-world matrices of 4 x 4 (OpenCV axes: x right, y down, z forward; the
                    world's y axis points down), or poses.txt with 16 numbers a line; none if static

Depth is along z, 0 where unknown; at least one pixel of every frame must be known. Pictures and depth
are paired in natural order of their names (frame_9 before frame_10). If the pictures have another
size than K's width and height but the same aspect, K is scaled.

Also read: `rgb/` in place of `color/`, and `intrinsics.txt` (a 3x3 or 4x4 matrix, or fx fy cx cy) in
place of `camera.json`; K is then for the pictures as they are.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image

from inspatio_sim.clips.framing import MAX_FPS, MIN_FPS, ClipRequest, Framing
from inspatio_sim.clips.images import IMAGE_SUFFIXES, check_readable, files_with_suffix, open_image, read_image
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.motion.camera import Intrinsics, check_poses

logger = logging.getLogger(__name__)

DepthFormat = Literal["png16", "npy", "exr"]

DEFAULT_FPS = 30.0
DEFAULT_DEPTH_SCALE_M = 0.001
MEDIAN_DEPTH_M = (0.001, 1000.0)  # beyond, the unit is not metres
MAX_SIDE_PX = 1_000_000
MAX_POSITION_M = 100_000.0  # from the origin of the poses
_COLOR_FOLDERS = ("color", "rgb")
DEPTH_SUFFIXES = {".png", ".npy", ".exr"}
_EXR_DEPTH_CHANNELS = ("z", "depth", "v", "y", "r")  # in order of preference; the last part of a dotted name


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """What camera.json or intrinsics.txt says."""

    K_px: NDArray[np.float64]  # [3, 3]
    size_px: tuple[int, int] | None  # (height, width) of the picture K is for; None: of the pictures found
    fps: float = DEFAULT_FPS
    depth_scale_m: float = DEFAULT_DEPTH_SCALE_M
    is_static: bool = False


def is_rgbd_folder(folder: str | Path) -> bool:
    """Whether a folder is meant as RGB-D: it has depth, or a camera file beside a colour folder."""
    folder = Path(folder)
    has_color = any((folder / name).is_dir() for name in _COLOR_FOLDERS)
    has_camera = (folder / "camera.json").is_file() or (folder / "intrinsics.txt").is_file()
    return (folder / "depth").is_dir() or (has_color and has_camera)


def rgbd_files(folder: Path) -> list[Path]:
    """The files of an RGB-D folder that are read."""
    texts = (folder / name for name in ("camera.json", "intrinsics.txt", "poses.json", "poses.txt"))
    color_paths, depth_paths = _paired_files(folder)
    return [*(path for path in texts if path.is_file()), *color_paths, *depth_paths]


def read_rgbd_folder(folder: str | Path, request: ClipRequest | None = None) -> Clip:
    """Read an RGB-D folder (layout above).

    Args:
        folder: the folder.
        request: which frames, at what size; all, at their own size, by default.

    Raises:
        InputError: one line that names the file and what is wrong with it.
    """
    folder, request = Path(folder), request or ClipRequest()
    check_readable(folder)
    camera = _read_camera(folder)
    color_paths, depth_paths = _paired_files(folder)
    T_world_camera = _read_poses(folder, len(color_paths), camera.is_static)

    frame_idxs, fps = request.choose(len(color_paths), camera.fps)
    frames_u8: NDArray[np.uint8] | None = None
    for n, frame_idx in enumerate(frame_idxs):
        rgb_u8 = read_image(color_paths[frame_idx], is_upright=False)
        depth_m = read_depth(depth_paths[frame_idx], camera.depth_scale_m)
        if frames_u8 is None:
            source_size_px = (rgb_u8.shape[0], rgb_u8.shape[1])
            framing = Framing.fit(source_size_px, request.size_px)
            shape = (len(frame_idxs), *framing.size_px)
            request.check_memory(np.prod(shape) * 7.0, str(folder))  # 3 bytes of colour and 4 of depth
            frames_u8, depths_m = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
        _check_size(color_paths[frame_idx], rgb_u8, source_size_px, f"{color_paths[frame_idxs[0]].name} has")
        _check_size(depth_paths[frame_idx], depth_m, source_size_px, "the colour images have")
        frames_u8[n], depths_m[n] = framing.color(rgb_u8), framing.depth(depth_m)
        request.report(n + 1, len(frame_idxs))
    assert frames_u8 is not None, "choose() returns at least one index"
    return Clip(
        frames_u8=frames_u8,
        fps=fps,
        source=str(folder),
        depth_m=depths_m,
        intrinsics=framing.intrinsics(_intrinsics(camera, source_size_px, folder)),
        T_world_camera=T_world_camera[frame_idxs],
    )


def read_depth(path: Path, png_scale_m: float = DEFAULT_DEPTH_SCALE_M) -> NDArray[np.float32]:
    """Read one depth image in metres and refuse values that are no depth. [H, W]"""
    check_readable(path)
    if path.suffix.lower() == ".png":
        image = open_image(path)
        if not image.mode.startswith("I"):
            raise InputError(f"{path}: depth png of mode {image.mode}: want one 16-bit channel")
        depth_m = np.asarray(image).astype(np.float32) * np.float32(png_scale_m)
    elif path.suffix.lower() == ".npy":
        depth_m = _read_npy(path)
    else:
        depth_m = _read_exr(path)
    if not np.all(np.isfinite(depth_m)):
        raise InputError(f"{path}: depth has NaN or inf: want metres, 0 where unknown")
    if depth_m.min() < 0:
        raise InputError(f"{path}: depth has negative values (lowest {depth_m.min():.4g} m): want 0 where unknown")
    if not depth_m.any():
        raise InputError(f"{path}: depth is all zero: want at least some known depth")
    median_m = float(np.median(depth_m[depth_m > 0]))
    if not MEDIAN_DEPTH_M[0] <= median_m <= MEDIAN_DEPTH_M[1]:
        raise InputError(f"{path}: the median depth is {median_m:.4g} m: want metres (or depth_scale_m of the png)")
    return depth_m


def write_rgbd_folder(folder: str | Path, clip: Clip, depth_format: DepthFormat = "png16") -> None:
    """Write a clip with depth, K and poses as a new folder (layout above), all of it or nothing.

    png16 rounds depth to whole millimetres and reaches to 65.535 m; npy and exr are exact.
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


def _read_camera(folder: Path) -> _Camera:
    path = folder / "camera.json"
    if not path.is_file():
        path = folder / "intrinsics.txt"
        if not path.is_file():
            raise InputError(f"{folder}: no camera.json (or intrinsics.txt): want K of the camera")
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
        depth_scale_m=_number_between(
            1e-9, 1e3, values.get("depth_scale_m", DEFAULT_DEPTH_SCALE_M), path, "depth_scale_m"
        ),
        is_static=is_static,
    )


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


def _read_poses(folder: Path, num_frames: int, is_static: bool) -> NDArray[np.float64]:
    """Camera-to-world matrices, one a frame. [N, 4, 4]"""
    found = [path for path in (folder / "poses.json", folder / "poses.txt") if path.is_file()]
    if len(found) + is_static != 1:
        came = ", ".join([path.name for path in found] + ["static: true"] * is_static) or "none"
        raise InputError(
            f'{folder}: poses: {came}: want one of poses.json, poses.txt and "static": true in camera.json'
        )
    if is_static:
        return np.tile(np.eye(4), (num_frames, 1, 1))
    path = found[0]
    if path.suffix == ".json":
        poses = _number_array(_read_json(path), path, "poses")
    else:
        numbers = _read_numbers(path)
        if numbers.size % 16:
            raise InputError(f"{path}: {numbers.size} numbers: want 16 for each frame")
        poses = numbers.reshape(-1, 4, 4)
    poses = check_poses(poses, f"{path}: pose")
    if len(poses) and (way_m := np.abs(poses[:, :3, 3]).max()) > MAX_POSITION_M:
        raise InputError(
            f"{path}: a camera is {way_m:.4g} m from the origin: want at most {MAX_POSITION_M:g} m, "
            "subtract the first position from all"
        )
    if len(poses) != num_frames:
        raise InputError(f"{path}: {len(poses)} poses for {num_frames} colour images: want one each")
    return poses


# Files


def _paired_files(folder: Path) -> tuple[list[Path], list[Path]]:
    color_folder = next((folder / name for name in _COLOR_FOLDERS if (folder / name).is_dir()), None)
    if color_folder is None:
        raise InputError(f"{folder}: no folder color/ (or rgb/): want the colour images there")
    if not (folder / "depth").is_dir():
        raise InputError(f"{folder}: no folder depth/: want one depth image for each colour image there")
    color = files_with_suffix(color_folder, IMAGE_SUFFIXES)
    depth = files_with_suffix(folder / "depth", DEPTH_SUFFIXES)
    if not color:
        raise InputError(f"{color_folder}: no images in this folder: want png or jpg files")
    if len(color) != len(depth):
        raise InputError(f"{folder}: {len(color)} colour and {len(depth)} depth images: want as many of each")
    if [path.stem for path in color] != [path.stem for path in depth]:
        logger.warning("%s: colour and depth have other names: paired in order", folder)
    return color, depth


def _check_size(path: Path, image: NDArray, size_px: tuple[int, int], others: str) -> None:
    if image.shape[:2] != size_px:
        came = f"{image.shape[1]}x{image.shape[0]}"
        raise InputError(f"{path}: {came} px, but {others} {size_px[1]}x{size_px[0]}: want one size")


def _read_npy(path: Path) -> NDArray[np.float32]:
    try:
        depth = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a false header takes no memory
    except Exception as error:  # numpy parses the header as Python and lets many kinds of errors through
        raise InputError(f"{path}: not a plain numpy array that can be read") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.size == 0 or depth.dtype.kind != "f":
        came = f"{depth.dtype} {depth.shape}" if isinstance(depth, np.ndarray) else "an archive"
        raise InputError(f"{path}: {came}: want floating-point metres, H x W")
    with np.errstate(over="ignore"):  # to inf, which is refused
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
        if units.max() > 0xFFFF:
            raise InputError(f"depth of {depth_m.max():.4g} m does not fit png16 (up to 65.535 m): want npy")
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
    """All numbers of a text file, separated by spaces, commas or lines. [N]"""
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
    """No longer than a line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
