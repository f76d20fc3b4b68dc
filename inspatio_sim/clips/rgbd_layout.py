"""Match the files of an RGB-D folder: an image, its depth and its pose have the same number.

There are two layouts: subfolders (color/ or rgb/, depth/, perhaps pose/), and all files side by side
(frame000001.jpg and depth000001.png; frame-000001.color.jpg, .depth.png and .pose.txt).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspatio_sim.clips.image_kinds import IMAGE_SUFFIXES, identified
from inspatio_sim.clips.images import files_with_suffix
from inspatio_sim.errors import InputError

logger = logging.getLogger(__name__)

DEPTH_SUFFIXES = frozenset({".png", ".npy", ".exr"})
CAMERA_NAMES = ("camera.json", "intrinsics.txt", "camera-intrinsics.txt")
POSES_NAMES = ("poses.json", "poses.txt")
_COLOR_FOLDERS = ("color", "rgb")
_DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".pgm")  # image formats that can have 16 bits
_DEPTH_WORD = re.compile(r"(?<![a-z])depth(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FrameFiles:
    """One frame of an RGB-D folder."""

    color: Path
    depth: Path
    pose: Path | None  # None: one file holds all poses
    idx: int  # index of the image among all that were found


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files that were found, each kind in natural order."""

    folder: Path
    color: Sequence[Path]
    depth: Sequence[Path]
    pose: Sequence[Path] = ()  # one per frame; empty if one file holds all
    has_known_unit: bool = True  # depth in png is in millimetres unless camera.json says otherwise

    def frames(self) -> tuple[list[FrameFiles], dict[str, int]]:
        """The matched frames, and the number of skipped files by reason."""
        depth_of = self._partners(self.depth, "depth")
        pose_of = self._partners(self.pose, "pose") if self.pose else {}
        frames = [
            FrameFiles(color=path, depth=depth_of[path], pose=pose_of.get(path), idx=idx)
            for idx, path in enumerate(self.color)
            if path in depth_of and (path in pose_of or not self.pose)
        ]
        if not frames:
            raise InputError(
                f"{self.folder}: no picture has both depth and a pose: want the same number in their names"
            )
        lost = {
            "pictures without depth": len(self.color) - len(depth_of),
            "depth images without a picture": len(self.depth) - len(depth_of),
            "pictures without a pose": len(depth_of) - len(frames),
        }
        return frames, {reason: number for reason, number in lost.items() if number}

    def _partners(self, others: Sequence[Path], what: str) -> dict[Path, Path]:
        partners = _paired(self.color, others)
        if partners:
            return partners
        names = f"{self.color[0].name}, {others[0].name}"
        if len(self.color) == len(others) and not all(_numbers(path) for path in [*self.color, *others]):
            logger.warning("%s: colour and %s have other names (%s): paired in order", self.folder, what, names)
            return dict(zip(self.color, others, strict=True))
        raise InputError(
            f"{self.folder}: the names do not match {what} and pictures ({names}): "
            "want one of each with the same number"
        )


def is_rgbd_folder(folder: str | Path) -> bool:
    """Whether a folder is RGB-D: it has depth, or a camera file beside a colour folder."""
    folder = Path(folder)
    return _has_subfolders(folder) or _side_by_side(folder) is not None


def find_layout(folder: Path) -> Layout:
    """The files of an RGB-D folder.

    Raises:
        InputError: images or depth are missing.
    """
    layout = None if _has_subfolders(folder) else _side_by_side(folder)
    if layout is None:
        return _in_subfolders(folder)
    if not layout.color:
        raise InputError(f"{folder}: depth images only: want the folder with the colour images as well")
    for path in layout.depth:
        if path.suffix.lower() not in DEPTH_SUFFIXES:
            raise InputError(
                f"{path}: depth among colour images, in an unsupported format: want 16-bit png, "
                "npy or exr; for the pictures alone, a folder without depth"
            )
    return layout


def check_no_depth(paths: Sequence[Path]) -> None:
    """Raise InputError for the images of a clip with depth among them."""
    deep = [path for path in paths if _is_deep(path)]
    if deep and len(deep) < len(paths):
        raise InputError(
            f"{deep[0]}: one 16-bit channel, like depth, among other pictures: want pictures only, or an RGB-D folder"
        )


def rgbd_files(folder: Path) -> list[Path]:
    """The files of an RGB-D folder that are read."""
    frames, _ = find_layout(folder).frames()
    texts = [path for name in (*CAMERA_NAMES, *POSES_NAMES) if (path := folder / name).is_file()]
    poses = [frame.pose for frame in frames if frame.pose]
    return [*texts, *(frame.color for frame in frames), *(frame.depth for frame in frames), *poses]


def _has_subfolders(folder: Path) -> bool:
    has_color = any((folder / name).is_dir() for name in _COLOR_FOLDERS)
    return (folder / "depth").is_dir() or (has_color and _has_camera(folder))


def _has_camera(folder: Path) -> bool:
    return any((folder / name).is_file() for name in CAMERA_NAMES)


def _in_subfolders(folder: Path) -> Layout:
    color_folder = next((folder / name for name in _COLOR_FOLDERS if (folder / name).is_dir()), None)
    if color_folder is None:
        raise InputError(f"{folder}: no folder color/ (or rgb/): want the colour images there")
    if not (folder / "depth").is_dir():
        raise InputError(f"{folder}: no folder depth/: want one depth image for each colour image there")
    color = files_with_suffix(color_folder, IMAGE_SUFFIXES)
    depth = files_with_suffix(folder / "depth", DEPTH_SUFFIXES)
    pose = files_with_suffix(folder / "pose", {".txt"}) if (folder / "pose").is_dir() else []
    if not color:
        raise InputError(f"{color_folder}: no images in this folder: want png or jpg files")
    if not depth:
        raise InputError(f"{folder / 'depth'}: no depth in this folder: want 16-bit png, npy or exr files")
    return Layout(folder=folder, color=color, depth=depth, pose=pose)


def _side_by_side(folder: Path) -> Layout | None:
    """Images and their depth in one folder; None if it has only images.

    Depth is an image with one 16-bit channel among others without, or one called depth. Floating-point
    files cannot be images, so they make a folder RGB-D only together with a camera file.
    """
    pictures = files_with_suffix(folder, IMAGE_SUFFIXES)
    deep = {path for path in pictures if _is_deep(path)}
    named = {path for path in pictures if _DEPTH_WORD.search(path.stem)}
    color = [path for path in pictures if path not in deep | named]
    depth = [path for path in pictures if path in deep | named]
    if not color:
        is_depth = deep and (deep <= named or _DEPTH_WORD.search(folder.name))
        return Layout(folder=folder, color=[], depth=depth) if is_depth else None
    if not deep and not _paired(color, depth):
        depth = []  # depth_of_field.jpg
    if not depth and _has_camera(folder):
        depth = [path for path in files_with_suffix(folder, {".npy", ".exr"}) if _DEPTH_WORD.search(path.stem)]
    if not depth:
        return None
    pose = [path for path in files_with_suffix(folder, {".txt"}) if path.stem.endswith(".pose")]
    return Layout(folder=folder, color=color, depth=depth, pose=pose, has_known_unit=bool(pose))


def _is_deep(path: Path) -> bool:
    """Whether a picture has one channel of 16 bits."""
    if path.suffix.lower() not in _DEEP_SUFFIXES:
        return False
    try:
        with identified(path) as image:
            return image.mode.startswith("I")
    except InputError:
        return False  # reading it will raise the error


def _paired(paths: Sequence[Path], others: Sequence[Path]) -> dict[Path, Path]:
    """The partner of each path that has one; empty if most names do not match."""
    keys: tuple[Callable[[Path], Hashable], ...] = (
        lambda path: path.stem,
        _numbers,
        lambda path: _numbers(path)[-1:],
        lambda path: _numbers(path)[:1],
    )
    for key in keys:
        path_of, other_of = {key(path): path for path in paths}, {key(path): path for path in others}
        is_unique = len(path_of) == len(paths) and len(other_of) == len(others)
        common = [name for name in path_of if name in other_of and name != ()]
        if is_unique and common and 2 * len(common) >= min(len(paths), len(others)):
            return {path_of[name]: other_of[name] for name in common}
    return {}


def _numbers(path: Path) -> tuple[str, ...]:
    """The numbers in a file's name, without leading zeros."""
    return tuple(word.lstrip("0") or "0" for word in re.findall(r"[0-9]+(?:\.[0-9]+)?", path.stem))
