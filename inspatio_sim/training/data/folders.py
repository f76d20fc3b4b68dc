"""What the datasets on disk have in common: checked arguments, choices by seed and index, framed files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.framing import Framing, check_side
from inspatio_sim.clips.images import check_readable, natural_key
from inspatio_sim.clips.rgbd_folder import read_depth
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics

_DEPTH_SUFFIXES = (".npy", ".exr", ".png")


def checked_folder(folder: str | Path, size_px: tuple[int, int], num_frames: int, seed: int) -> Path:
    """The folder, once it and the other arguments of a dataset are found usable."""
    path = Path(folder)
    check_readable(path)
    if not path.is_dir():
        raise InputError(f"{path}: is a file: want a folder")
    if len(size_px) != 2:
        raise InputError(f"size_px={size_px}: want (height, width)")
    check_side(*size_px, name="size_px")
    if num_frames < 1:
        raise InputError(f"num_frames={num_frames}: want at least 1")
    if seed < 0:
        raise InputError(f"seed={seed}: want 0 or more")
    return path


def folders_in(folder: Path) -> list[Path]:
    """Visible folders, in natural order."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(found, key=natural_key)


def checked_index(index: int, length: int) -> int:
    """The index counted from the front; IndexError beyond the end, as Python's sequences have it."""
    if not -length <= index < length:
        raise IndexError(f"index {index}: want {-length} to {length - 1}")
    return index % length


def generator(seed: int, index: int) -> np.random.Generator:
    """The choices that belong to one sample: the same for the same seed and index."""
    return np.random.default_rng([seed, index])


def read_text(path: Path) -> str:
    """A text file in UTF-8."""
    check_readable(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file that can be read") from error


def read_json(path: Path) -> Any:
    """What a JSON file says."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error


def read_caption(path: Path) -> str:
    """The text of a caption file, or nothing if there is none."""
    return read_text(path).strip() if path.exists() else ""


def video_framing(path: Path, size_px: tuple[int, int]) -> Framing:
    """How `read_clip` cuts the frames of a video with sides of even length to a size."""
    height_px, width_px = read_clip(path, max_frames=1).frames_u8.shape[1:3]
    return Framing.fit((height_px, width_px), size_px)


def read_depths(folder: Path, names: Sequence[str], framing: Framing) -> NDArray[np.float32]:
    """Depth images cut as the pictures were, or zeros (unknown) if the folder does not exist.

    Args:
        folder: with NAME.npy, .exr or 16-bit .png (millimetres) for each name, in the metres of the poses. They may
            be smaller or larger than the pictures but have the same aspect.
        names: of the frames, without suffix.
        framing: of the pictures.

    Returns:
        z-depth, 0 = unknown. [T, H, W]
    """
    depths_m = np.zeros((len(names), *framing.size_px), np.float32)
    if not folder.exists():
        return depths_m
    for n, name in enumerate(names):
        found = [path for suffix in _DEPTH_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
        if len(found) != 1:
            came = ", ".join(path.name for path in found) or "nothing"
            raise InputError(f"{folder}: {came} for frame {name}: want one of {name}.npy, .exr and .png")
        depth_m = read_depth(found[0])
        height_px, width_px = depth_m.shape
        size_px = (framing.source_height_px, framing.source_width_px)
        if abs(width_px * size_px[0] - height_px * size_px[1]) > max(height_px, width_px, *size_px):
            raise InputError(
                f"{found[0]}: {width_px}x{height_px} px for pictures of {size_px[1]}x{size_px[0]}: want the same aspect"
            )
        depths_m[n] = Framing.fit((height_px, width_px), framing.size_px).depth(depth_m)
    return depths_m


def same_camera(reference: Intrinsics, target: Intrinsics) -> bool:
    """Whether two cameras have one K, up to rounding."""
    return bool(np.allclose(reference.K_px, target.K_px, rtol=1e-6, atol=1e-4))


def from_first_reference(T_world_reference: Array, T_world_target: Array) -> tuple[Array, Array]:
    """The same paths in a world whose origin is the first reference camera; its axes stay. [T, 4, 4] each"""
    origin_m = T_world_reference[0, :3, 3]
    moved = T_world_reference.copy(), T_world_target.copy()
    for T_world_camera in moved:
        T_world_camera[:, :3, 3] -= origin_m
    return moved
