"""Clips of your own, with depth and poses: a folder for each, with the reference and the target as RGB-D folders.

    my_folder/
      kitchen_1/reference/   color/, depth/, camera.json, poses.json, as `inspatio_sim.clips.rgbd_folder` describes
                target/      as many frames, the same K, poses in the same world
                caption.txt  optional
      kitchen_2/...

Samples keep the poses of the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.framing import ClipRequest
from inspatio_sim.clips.rgbd_folder import read_rgbd_folder
from inspatio_sim.clips.rgbd_layout import rgbd_files
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array
from inspatio_sim.training.data.folders import (
    checked_folder,
    checked_index,
    folders_in,
    generator,
    read_caption,
    same_camera,
)
from inspatio_sim.training.data.sample import Sample


class ClipFolder:
    """One sample for each sub-folder; of clips longer than `num_frames`, the seed and the index decide which part."""

    def __init__(self, folder: str | Path, size_px: tuple[int, int], num_frames: int, seed: int) -> None:
        """Look through the folder; pictures are read when a sample is asked for.

        Args:
            folder: in the layout above.
            size_px: (height, width) of the samples, by centre crop and resize; K follows.
            num_frames: T of the samples.
            seed: of the choices, 0 or more.

        Raises:
            InputError: an argument is wrong, there is no clip, or one lacks its reference or target.
        """
        self.folder = checked_folder(folder, size_px, num_frames, seed)
        self.size_px, self.num_frames, self.seed = size_px, num_frames, seed
        self.clips = folders_in(self.folder)
        if not self.clips:
            raise InputError(f"{self.folder}: no folders in it: want one for each clip")
        for clip in self.clips:
            missing = [name for name in ("reference", "target") if not (clip / name).is_dir()]
            if missing:
                raise InputError(f"{clip}: no folder {' and no '.join(missing)}: want both as RGB-D folders")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(index, len(self))
        clip = self.clips[index]
        num_reference, num_target = _num_frames(clip / "reference"), _num_frames(clip / "target")
        if num_reference != num_target:
            raise InputError(f"{clip}: {num_reference} frames of reference, {num_target} of target: want as many")
        if num_target < self.num_frames:
            raise InputError(f"{clip}: {num_target} frames: want at least num_frames={self.num_frames}")
        start = int(generator(self.seed, index).integers(num_target - self.num_frames + 1))
        request = ClipRequest(size_px=self.size_px, max_frames=start + self.num_frames)
        reference = read_rgbd_folder(clip / "reference", request)
        target = read_rgbd_folder(clip / "target", request)
        for half in (reference, target):
            if half.notes:  # frame n of one is frame n of the other
                raise InputError(f"{half.source}: {half.notes[0]}: want every frame whole")
        assert reference.intrinsics is not None, "an RGB-D folder has K"
        assert target.intrinsics is not None, "an RGB-D folder has K"
        if not same_camera(reference.intrinsics, target.intrinsics):
            raise InputError(f"{clip}: K of reference and target differ: want one camera")
        reference_depth_m, T_world_reference = _geometry(reference, start)
        target_depth_m, T_world_target = _geometry(target, start)
        return Sample(
            reference_u8=reference.frames_u8[start:].copy(),
            target_u8=target.frames_u8[start:].copy(),
            reference_depth_m=reference_depth_m,
            target_depth_m=target_depth_m,
            intrinsics=reference.intrinsics,
            T_world_reference=T_world_reference,
            T_world_target=T_world_target,
            caption=read_caption(clip / "caption.txt"),
        )


def _num_frames(folder: Path) -> int:
    return sum(path.parent.name == "depth" for path in rgbd_files(folder))


def _geometry(clip: Clip, start: int) -> tuple[NDArray[np.float32], Array]:
    """Depth [T, H, W] and poses [T, 4, 4] from a frame on."""
    assert clip.depth_m is not None, "an RGB-D folder has depth"
    assert clip.T_world_camera is not None, "an RGB-D folder has poses"
    return clip.depth_m[start:].copy(), clip.T_world_camera[start:].copy()
