"""RealEstate10K: walks through houses that stand still, with camera paths from structure from motion.

    my_folder/
      0000cc6d8b108390.txt          one file a clip, as published: the video's address, then a line for each frame
      frames/0000cc6d8b108390/      52553000.png (or .jpg) ...: a picture for each line, named by its timestamp,
             or 0000cc6d8b108390.mp4   a video (mp4, mov, mkv) with one frame for each line
      depth/0000cc6d8b108390/       optional: 52553000.npy, .exr or .png, in the unit of the poses (png: a thousandth)
      captions/0000cc6d8b108390.txt optional

A line has 19 numbers: timestamp in microseconds; fx, cx as shares of the width and fy, cy of the height (in the
order fx fy cx cy); two zeros; a world-to-camera matrix, 3x4, row by row, OpenCV axes. Each clip has its own unit of
length, which nothing in the dataset ties to metres.

Source: https://google.github.io/realestate10k (format of the camera files).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.framing import Framing
from inspatio_sim.clips.images import files_with_suffix, read_image
from inspatio_sim.clips.video import VIDEO_SUFFIXES, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics, check_pose, inverse
from inspatio_sim.training.data.folders import (
    checked_folder,
    checked_index,
    from_first_reference,
    generator,
    read_caption,
    read_depths,
    read_text,
    video_framing,
)
from inspatio_sim.training.data.sample import Sample

logger = logging.getLogger(__name__)

STILL_SHARE = 0.25  # of samples whose reference is one picture, repeated: a photo instead of a video
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_NUMBERS_PER_LINE = 19
_TIMESTAMP = re.compile(r"[0-9]{1,18}")  # becomes a file name: nothing but digits


@dataclass(frozen=True, kw_only=True)
class Re10kCameras:
    """One camera file."""

    timestamps: tuple[str, ...]  # as written, microseconds. N of them
    fx: float  # in widths
    fy: float  # in heights
    cx: float  # in widths, from the left edge of the picture
    cy: float  # in heights, from its top edge
    T_world_camera: Array  # [N, 4, 4]

    def intrinsics(self, size_px: tuple[int, int]) -> Intrinsics:
        """K of whole pictures of this (height, width), pixel centres at integers: 0.5 is the middle, (W - 1) / 2."""
        height_px, width_px = size_px
        return Intrinsics(
            fx_px=self.fx * width_px,
            fy_px=self.fy * height_px,
            cx_px=self.cx * width_px - 0.5,
            cy_px=self.cy * height_px - 0.5,
            width_px=width_px,
            height_px=height_px,
        )


class Re10kClips:
    """Pairs of sub-clips of one video, each played forwards or backwards; or one picture and a sub-clip it begins.

    The same seed and index always choose the same pair. Clips shorter than `num_frames`, or without pictures, are
    passed over with a logged warning.
    """

    def __init__(
        self, folder: str | Path, size_px: tuple[int, int], num_frames: int, seed: int, *, pairs_per_clip: int = 8
    ) -> None:
        """Look through the folder; pictures are read when a sample is asked for.

        Args:
            folder: in the layout above.
            size_px: (height, width) of the samples, by centre crop and resize; K follows.
            num_frames: T of the samples.
            seed: of the choices, 0 or more.
            pairs_per_clip: how many samples each clip gives.

        Raises:
            InputError: an argument is wrong, or there is no usable clip.
        """
        self.folder = checked_folder(folder, size_px, num_frames, seed)
        self.size_px, self.num_frames, self.seed = size_px, num_frames, seed
        if pairs_per_clip < 1:
            raise InputError(f"pairs_per_clip={pairs_per_clip}: want at least 1")
        self.pairs_per_clip = pairs_per_clip
        camera_files = files_with_suffix(self.folder, {".txt"})
        if not camera_files:
            raise InputError(f"{self.folder}: no camera files: want CLIP.txt for each clip, as published")
        with_pictures = [path for path in camera_files if _pictures(self.folder, path.stem) is not None]
        if not with_pictures:
            raise InputError(f"{self.folder}: no pictures of any clip: want frames/CLIP/ or frames/CLIP.mp4")
        usable = [path for path in with_pictures if _num_lines(path) >= num_frames]
        if not usable:
            raise InputError(f"{self.folder}: no clip has num_frames={num_frames} frames: want fewer")
        if len(usable) < len(camera_files):
            num_without, num_short = len(camera_files) - len(with_pictures), len(with_pictures) - len(usable)
            logger.warning("%s: passed over: %d clips without pictures, %d too short", folder, num_without, num_short)
        self.clip_ids = [path.stem for path in usable]

    def __len__(self) -> int:
        return len(self.clip_ids) * self.pairs_per_clip

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(index, len(self))
        clip_id = self.clip_ids[index % len(self.clip_ids)]
        cameras = read_re10k_cameras(self.folder / f"{clip_id}.txt")
        reference_idxs, target_idxs = choose_pair(
            len(cameras.timestamps), self.num_frames, generator(self.seed, index), f"{clip_id}.txt"
        )
        used = sorted({*reference_idxs, *target_idxs})
        frames_u8, framing = self._read_pictures(clip_id, cameras, used)
        depth_m = read_depths(self.folder / "depth" / clip_id, [cameras.timestamps[i] for i in used], framing)
        reference, target = np.searchsorted(used, reference_idxs), np.searchsorted(used, target_idxs)
        T_world_reference, T_world_target = from_first_reference(
            cameras.T_world_camera[reference_idxs], cameras.T_world_camera[target_idxs]
        )
        source_size_px = (framing.source_height_px, framing.source_width_px)
        return Sample(
            reference_u8=frames_u8[reference],
            target_u8=frames_u8[target],
            reference_depth_m=depth_m[reference],
            target_depth_m=depth_m[target],
            intrinsics=framing.intrinsics(cameras.intrinsics(source_size_px)),
            T_world_reference=T_world_reference,
            T_world_target=T_world_target,
            caption=read_caption(self.folder / "captions" / f"{clip_id}.txt"),
        )

    def _read_pictures(
        self, clip_id: str, cameras: Re10kCameras, frame_idxs: list[int]
    ) -> tuple[NDArray[np.uint8], Framing]:
        """These frames of a clip, and how they were cut. [len(frame_idxs), H, W, 3]"""
        source = _pictures(self.folder, clip_id)
        if source is None:
            raise InputError(f"{self.folder}: the pictures of {clip_id} are gone: want frames/{clip_id}/")
        num_frames = len(cameras.timestamps)
        if source.is_file():
            clip = read_clip(source, size_px=self.size_px, max_frames=num_frames + 1)
            num_came = len(clip.frames_u8)
            if num_came != num_frames:
                came = num_came if num_came < num_frames else "more"
                raise InputError(f"{source}: {came} frames for {num_frames} lines in {clip_id}.txt: want one each")
            return clip.frames_u8[frame_idxs], video_framing(source, self.size_px)
        framing = None
        frames_u8 = np.empty((len(frame_idxs), *self.size_px, 3), np.uint8)
        for n, frame_idx in enumerate(frame_idxs):
            path = _picture(source, cameras.timestamps[frame_idx])
            rgb_u8 = read_image(path, is_upright=False)
            framing = framing or Framing.fit((rgb_u8.shape[0], rgb_u8.shape[1]), self.size_px)
            if not framing.fits(rgb_u8):
                size = f"{framing.source_width_px}x{framing.source_height_px}"
                raise InputError(f"{path}: {rgb_u8.shape[1]}x{rgb_u8.shape[0]} px, others have {size}: want one size")
            frames_u8[n] = framing.color(rgb_u8)
        assert framing is not None, "a sample has frames"
        return frames_u8, framing


def choose_pair(
    num_frames: int, num_chosen: int, rng: np.random.Generator, name: str = "clip"
) -> tuple[list[int], list[int]]:
    """Frame indices of reference and target, `num_chosen` each, in the order in which they are shown."""
    if num_frames < num_chosen:
        raise InputError(f"{name}: {num_frames} frames: want at least num_frames={num_chosen}")

    def sub_clip() -> list[int]:
        start = int(rng.integers(num_frames - num_chosen + 1))
        frame_idxs = list(range(start, start + num_chosen))
        return frame_idxs[::-1] if rng.random() < 0.5 else frame_idxs

    target = sub_clip()
    reference = [target[0]] * num_chosen if rng.random() < STILL_SHARE else sub_clip()
    return reference, target


def read_re10k_cameras(path: str | Path) -> Re10kCameras:
    """Read one camera file.

    Raises:
        InputError: one line that names the file, the line in it and what is wrong.
    """
    path = Path(path)
    lines = [(n, line.split()) for n, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: no lines: want the video's address, then a line for each frame")
    if len(lines[0][1]) == _NUMBERS_PER_LINE:
        raise InputError(f"{path}: the first line is a frame: want the video's address there")
    if len(lines) < 2:
        raise InputError(f"{path}: no frames: want a line of {_NUMBERS_PER_LINE} numbers for each")
    numbers = np.stack([_numbers(words, f"{path}, line {n}") for n, words in lines[1:]])  # [N, 18]
    timestamps = tuple(words[0] for _, words in lines[1:])
    for (n, _), before, after in zip(lines[2:], timestamps, timestamps[1:], strict=False):
        if int(after) <= int(before):
            raise InputError(f"{path}, line {n}: timestamp {after} after {before}: want them increasing")
    if np.ptp(numbers[:, :4], axis=0).max() > 1e-6:
        raise InputError(f"{path}: the intrinsics change from frame to frame: want one camera")
    fx, fy, cx, cy = (float(value) for value in numbers[0, :4])
    T_camera_world = np.tile(np.eye(4), (len(numbers), 1, 1))
    T_camera_world[:, :3] = numbers[:, 6:].reshape(-1, 3, 4)
    checked = [
        check_pose(T, f"{path}, line {n}: the pose") for (n, _), T in zip(lines[1:], T_camera_world, strict=True)
    ]
    return Re10kCameras(timestamps=timestamps, fx=fx, fy=fy, cx=cx, cy=cy, T_world_camera=inverse(np.stack(checked)))


def _numbers(words: list[str], where: str) -> Array:
    """Everything on a line but the timestamp. [18]"""
    if len(words) != _NUMBERS_PER_LINE:
        raise InputError(f"{where}: {len(words)} numbers: want {_NUMBERS_PER_LINE}")
    if not _TIMESTAMP.fullmatch(words[0]):
        raise InputError(f"{where}: timestamp {words[0][:40]!r}: want microseconds, digits only")
    try:
        numbers = np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise InputError(f"{where}: want numbers only: {error}") from error
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{where}: has NaN or inf: want finite numbers")
    if numbers[0] <= 0 or numbers[1] <= 0:
        raise InputError(f"{where}: focal lengths {numbers[0]:g} and {numbers[1]:g}: want them positive")
    if numbers[4:6].any():
        raise InputError(f"{where}: distortion {numbers[4]:g} {numbers[5]:g}: want zeros, undistort the pictures first")
    return numbers


def _num_lines(path: Path) -> int:
    """How many frames a camera file lists; it is read in full when a sample needs it."""
    return sum(1 for line in read_text(path).splitlines() if line.strip()) - 1


def _pictures(folder: Path, clip_id: str) -> Path | None:
    """Where the pictures of a clip are: a folder or a video."""
    stem = folder / "frames" / clip_id
    if stem.is_dir():
        return stem
    return next((path for suffix in VIDEO_SUFFIXES if (path := Path(f"{stem}{suffix}")).is_file()), None)


def _picture(folder: Path, timestamp: str) -> Path:
    for suffix in _PICTURE_SUFFIXES:
        if (path := folder / f"{timestamp}{suffix}").is_file():
            return path
    raise InputError(f"{folder}: no picture for timestamp {timestamp}: want {timestamp}.png or .jpg")
