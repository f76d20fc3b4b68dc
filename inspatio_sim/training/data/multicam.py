"""MultiCamVideo, the dataset of ReCamMaster: scenes rendered in Unreal Engine, filmed by ten cameras at once.

    my_folder/
      train/f18_aperture10/scene1/videos/cam01.mp4 ... cam10.mp4       square, synchronised; f is in millimetres
                                  cameras/camera_extrinsics.json       {"frame0": {"cam01": "[...] [...] [...] [...]"}}
                                  depth/cam01/0.npy, .exr or .png ...  optional, not published: metres (png: mm)
      metadata.csv                optional: columns file_name (f18_aperture10/scene1/videos/cam01.mp4) and text

Unreal Engine's axes are x forward, y right, z up: left-handed, in centimetres. Each string holds four rows, for
vectors that multiply from the left: the directions of the camera's x, y and z axes in the world, and its position,
so the transpose M is camera to world, p_world = M p_camera. OpenCV's coordinates (x right, y down, z forward) of the
same vector are S (x, y, z) = (y, -z, x). With the camera's and the world's coordinates both rewritten,

    T_world_camera = S M S^T,   det S = -1 twice, so det R = +1: a proper rotation in a right-handed world, y down.

M S^T alone is what ReCamMaster's loader computes (columns [1, 2, 0, 3], column 1 negated, centimetres / 100): OpenCV
camera axes in the left-handed world, det R = -1. Its relative poses are the same, since S cancels in them.

Sources: KwaiVGI/ReCamMaster 57d94bc, train_recammaster.py (loader) and README.md (layout, 23.76 mm sensor).
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.clips.framing import Framing
from inspatio_sim.clips.images import files_with_suffix
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics, check_pose
from inspatio_sim.training.data.folders import (
    checked_folder,
    checked_index,
    folders_in,
    from_first_reference,
    generator,
    read_depths,
    read_json,
    read_text,
    video_framing,
)
from inspatio_sim.training.data.sample import Sample

SENSOR_MM = 23.76  # width and height
_CM_PER_M = 100.0
_T_OPENCV_UNREAL = np.array([[0, 1.0, 0, 0], [0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])  # S above
_LENS = re.compile(r"f([0-9]{1,4})_aperture[0-9.]+")
_CAMERA = re.compile(r"cam[0-9]{2}")
_ROW = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class _Scene:
    folder: Path
    focal_mm: float
    cameras: tuple[str, ...]  # at least two

    @property
    def num_pairs(self) -> int:
        return len(self.cameras) * (len(self.cameras) - 1)

    def pair(self, number: int) -> tuple[str, str]:
        """(reference, target): the `number`-th of all ordered pairs."""
        reference, other = divmod(number, len(self.cameras) - 1)
        return self.cameras[reference], self.cameras[other + (other >= reference)]

    @property
    def extrinsics_path(self) -> Path:
        return self.folder / "cameras" / "camera_extrinsics.json"

    def video(self, camera: str) -> Path:
        return self.folder / "videos" / f"{camera}.mp4"


class MultiCamClips:
    """Every ordered pair of cameras of every scene; which of the frames, the seed and the index decide."""

    def __init__(self, folder: str | Path, size_px: tuple[int, int], num_frames: int, seed: int) -> None:
        """Look through the folder; videos and cameras are read when a sample is asked for.

        Args:
            folder: in the layout above.
            size_px: (height, width) of the samples, by centre crop and resize; K follows.
            num_frames: T of the samples.
            seed: of the choices, 0 or more.

        Raises:
            InputError: an argument is wrong, there is no scene, or one lacks its cameras.
        """
        self.folder = checked_folder(folder, size_px, num_frames, seed)
        self.size_px, self.num_frames, self.seed = size_px, num_frames, seed
        self._scenes = _find_scenes(self.folder)
        self._first_idxs = np.cumsum([0, *(scene.num_pairs for scene in self._scenes)])  # the last is the length
        self._captions = _read_captions(self.folder / "metadata.csv")

    def __len__(self) -> int:
        return int(self._first_idxs[-1])

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(index, len(self))
        scene_idx = int(np.searchsorted(self._first_idxs, index, side="right")) - 1
        scene = self._scenes[scene_idx]
        reference, target = scene.pair(index - int(self._first_idxs[scene_idx]))
        poses = read_extrinsics(scene.extrinsics_path, (reference, target))
        num_frames = len(poses[reference])
        if num_frames < self.num_frames:
            raise InputError(f"{scene.extrinsics_path}: {num_frames} frames: want at least {self.num_frames}")
        start = int(generator(self.seed, index).integers(num_frames - self.num_frames + 1))
        window = slice(start, start + self.num_frames)

        framing = video_framing(scene.video(reference), self.size_px)
        if framing != video_framing(scene.video(target), self.size_px):
            raise InputError(f"{scene.video(target)}: not of the size of {reference}.mp4: want one size")
        T_world_reference, T_world_target = from_first_reference(poses[reference][window], poses[target][window])
        names = [str(n) for n in range(start, window.stop)]
        return Sample(
            reference_u8=self._read_frames(scene.video(reference), start),
            target_u8=self._read_frames(scene.video(target), start),
            reference_depth_m=read_depths(scene.folder / "depth" / reference, names, framing),
            target_depth_m=read_depths(scene.folder / "depth" / target, names, framing),
            intrinsics=framing.intrinsics(_intrinsics(scene, framing)),
            T_world_reference=T_world_reference,
            T_world_target=T_world_target,
            caption=self._captions.get(scene.video(target).relative_to(self.folder / "train").as_posix(), ""),
        )

    def _read_frames(self, path: Path, start: int) -> NDArray[np.uint8]:
        """[T, H, W, 3]"""
        stop = start + self.num_frames
        frames_u8 = read_clip(path, size_px=self.size_px, max_frames=stop).frames_u8
        if len(frames_u8) < stop:
            raise InputError(f"{path}: only {len(frames_u8)} frames: want those of camera_extrinsics.json")
        return frames_u8[start:].copy()


def pose_from_unreal(rows: ArrayLike, name: str = "pose") -> Array:
    """`T_world_camera` from a matrix as in camera_extrinsics.json; the world becomes OpenCV's axes, metres. [4, 4]"""
    M = np.array(rows, dtype=np.float64).T
    if M.shape != (4, 4):
        raise InputError(f"{name} has shape {M.T.shape}: want a 4x4 matrix")
    M[:3, 3] /= _CM_PER_M
    return check_pose(_T_OPENCV_UNREAL @ M @ _T_OPENCV_UNREAL.T, name)


def read_extrinsics(path: str | Path, cameras: tuple[str, ...]) -> dict[str, Array]:
    """The paths of these cameras, one pose for each frame of the file. [N, 4, 4] each

    Raises:
        InputError: one line that names the file, the frame, the camera and what is wrong.
    """
    path = Path(path)
    frames = read_json(path)
    if not isinstance(frames, dict) or not frames:
        raise InputError(f'{path}: want an object with the keys "frame0", "frame1", ...')
    poses: dict[str, list[Array]] = {camera: [] for camera in cameras}
    for n in range(len(frames)):
        frame = frames.get(f"frame{n}")
        if not isinstance(frame, dict):
            raise InputError(f'{path}: "frame{n}" of {len(frames)} frames is missing or no object: want all in a row')
        for camera in cameras:
            where = f"{path}: frame{n}, {camera}"
            poses[camera].append(pose_from_unreal(_matrix(frame.get(camera), where), where))
    return {camera: np.stack(path_of_one) for camera, path_of_one in poses.items()}


def _matrix(text: Any, where: str) -> list[list[float]]:
    """Four rows of four numbers."""
    if not isinstance(text, str):
        raise InputError(f'{where}: {"missing" if text is None else "no string"}: want "[a b c d] [..] [..] [..]"')
    try:
        rows = [[float(word) for word in row.split()] for row in _ROW.findall(text)]
    except ValueError as error:
        raise InputError(f"{where}: want numbers only: {error}") from error
    if _ROW.sub("", text).strip() or [len(row) for row in rows] != [4] * 4:
        raise InputError(f"{where}: rows of {[len(row) for row in rows]} numbers: want four rows of four in brackets")
    return rows


def _intrinsics(scene: _Scene, framing: Framing) -> Intrinsics:
    """K of the whole picture."""
    side_px = framing.source_width_px
    if framing.source_height_px != side_px:
        size = f"{side_px}x{framing.source_height_px}"
        raise InputError(f"{scene.folder}: videos of {size} px: want them square, as published; they are cropped here")
    focal_px = scene.focal_mm / SENSOR_MM * side_px
    centre_px = (side_px - 1) / 2
    return Intrinsics(
        fx_px=focal_px, fy_px=focal_px, cx_px=centre_px, cy_px=centre_px, width_px=side_px, height_px=side_px
    )


def _find_scenes(folder: Path) -> list[_Scene]:
    if not (folder / "train").is_dir():
        raise InputError(f"{folder}: no folder train/: want train/f18_aperture10/scene1/..., as published")
    scenes = []
    for lens_folder in folders_in(folder / "train"):
        lens = _LENS.fullmatch(lens_folder.name)
        if not lens or int(lens[1]) == 0:
            raise InputError(f"{lens_folder}: the name gives no focal length: want such as f18_aperture10")
        scenes += [_scene(path, float(lens[1])) for path in folders_in(lens_folder)]
    if not scenes:
        raise InputError(f"{folder / 'train'}: no scenes: want f18_aperture10/scene1/..., as published")
    return scenes


def _scene(folder: Path, focal_mm: float) -> _Scene:
    videos = files_with_suffix(folder / "videos", {".mp4"}) if (folder / "videos").is_dir() else []
    cameras = tuple(path.stem for path in videos if _CAMERA.fullmatch(path.stem))
    if len(cameras) < 2:
        raise InputError(f"{folder}: {len(cameras)} videos: want at least videos/cam01.mp4 and cam02.mp4")
    scene = _Scene(folder=folder, focal_mm=focal_mm, cameras=cameras)
    if not scene.extrinsics_path.is_file():
        raise InputError(f"{scene.extrinsics_path}: does not exist: want the cameras of this scene, or no such folder")
    return scene


def _read_captions(path: Path) -> dict[str, str]:
    """Text by the video's path below train/; nothing if there is no such file."""
    if not path.exists():
        return {}
    try:
        table = csv.DictReader(io.StringIO(read_text(path)))
        if not {"file_name", "text"} <= set(table.fieldnames or ()):
            raise InputError(f"{path}: columns {table.fieldnames}: want file_name and text")
        return {row["file_name"]: (row["text"] or "").strip() for row in table}
    except csv.Error as error:
        raise InputError(f"{path}: not a table that can be read: {error}") from error
