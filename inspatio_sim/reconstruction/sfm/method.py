"""Structure from motion with COLMAP: intrinsics, poses and depth from a clip whose camera moves."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, check_poses, interpolate_poses, inverse, pose_from
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.motion import MotionReport, camera_motion, first_showings, follow_points, grey_frames
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction
from inspatio_sim.reconstruction.sfm.densify import DensifyConfig, SparsePoints, check_flow_size, densify
from inspatio_sim.reconstruction.sfm.gravity import gravity_direction, leveling_rotation

__all__ = ["MotionReport", "SfmReconstructor", "camera_motion"]

logger = logging.getLogger(__name__)

WORKER = "inspatio_sim.reconstruction.sfm.colmap_worker"
MIN_FRAMES = 3
MIN_POINTS = 50
MIN_POINT_VIEWS = 5
MIN_PNP_POINTS = 20
PNP_ERROR_PX = 3.0
MAX_GAP_S = 0.25  # frames that could not be placed are given poses between others' no longer than this
MIN_KEPT_SHARE = 2 / 3  # of the frames, once those before and after are left out; fewer are refused
MAX_NAMED = 5  # stretches of frames in a sentence
ADVICE = "bring depth along (RGB-D), or use method layout, or hf or da3 with a model folder"
STAGES = {
    "features": (0.05, 0.2),
    "matching": (0.2, 0.3),
    "mapping": (0.3, 0.55),
    "polishing": (0.55, 0.6),
}  # share of the total


@dataclass(frozen=True, kw_only=True)
class SparseModel:
    """COLMAP's model, at the size of its images."""

    keyframe_idx: NDArray[np.int64]  # frames of the clip that were registered. [R]
    T_camera_world: NDArray[np.float64]  # [R, 4, 4]
    intrinsics: Intrinsics
    xyz: NDArray[np.float64]  # [N, 3]
    seen_in: NDArray[np.int64]  # observations: row of keyframe_idx, [M] ...
    point_idx: NDArray[np.int64]  # ... index of the point, [M] ...
    xy_px: NDArray[np.float64]  # ... and its pixel. [M, 2]
    reprojection_error_px: float
    inlier_share: float  # share of inliers in feature matches


@dataclass(frozen=True, kw_only=True)
class SfmReconstructor:
    """COLMAP on keyframes; the frames between are placed on its points; optical flow gives dense depth.

    The camera is a pinhole without distortion, because the depth must fit the clip's own frames, which
    are not undistorted. Lens distortion shows as a larger reprojection error. Without known
    intrinsics one focal length is estimated and the principal point is the image centre.
    """

    max_keyframes: int = 40
    side_px: int = 640  # long side of COLMAP's images
    min_registered_share: float = 0.7  # minimum share of keyframes
    density: DensifyConfig = field(default_factory=DensifyConfig)

    name = "sfm"

    def __post_init__(self) -> None:
        check_types(self)
        if self.max_keyframes < MIN_FRAMES:
            raise InputError(f"max_keyframes={self.max_keyframes}: want at least {MIN_FRAMES}")
        if self.side_px < 64:
            raise InputError(f"side_px={self.side_px}: want at least 64")
        if not 0 < self.min_registered_share <= 1:
            raise InputError(f"min_registered_share={self.min_registered_share}: want more than 0, at most 1")

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Poses, intrinsics and dense depth in COLMAP's own units (any scale), gravity along +y.

        Raises:
            InputError: if the camera does not move, or too few frames can be placed.
        """
        report = progress or (lambda what, share_done: None)
        report("camera motion", 0.0)
        num_frames, H, W = clip.frames_u8.shape[:3]
        check_flow_size(H, W, self.density)
        shown, shows = np.unique(first_showings(clip.frames_u8), return_inverse=True)  # [D]; [T], index into shown
        _refuse_few_frames(clip.source, num_frames, len(shown))
        if len(shown) < num_frames:  # all below sees each picture once
            clip = replace(clip, frames_u8=clip.frames_u8[shown], depth_m=None, T_world_camera=None)
        _refuse_without_parallax(clip)
        keyframes = np.arange(0, len(shown), -(-len(shown) // self.max_keyframes))
        model = run_colmap(clip, keyframes, self.side_px, report)
        self._refuse_weak_model(model, clip.source, len(keyframes))
        report("frames between keyframes", 0.6)
        T_world_camera, is_shown_placed = place_all_frames(clip.frames_u8, model, self.side_px)
        is_placed = is_shown_placed[shows]
        kept = longest_stretch(np.flatnonzero(is_placed), max_gap=max(1, round(MAX_GAP_S * clip.fps)))
        if len(kept) < MIN_KEPT_SHARE * num_frames:
            start_frame = clip.start_frame + kept.start
            raise InputError(
                f"{clip.source}: structure from motion placed {len(kept)} of {num_frames} frames without a gap: want "
                f"{MIN_KEPT_SHARE:.0%}; take these (--start-frame {start_frame} --max-frames {len(kept)}), or {ADVICE}"
            )
        span = slice(int(shows[kept.start]), int(shows[kept.stop - 1]) + 1)  # of what is shown
        T_world_camera = with_gaps_filled(T_world_camera[span], is_shown_placed[span], shown[span])
        T_world_camera, xyz = leveled(T_world_camera, model.xyz)
        intrinsics = clip.intrinsics or model.intrinsics.resized(W, H)
        dense = densify(
            clip.frames_u8[span],
            intrinsics,
            T_world_camera,
            SparsePoints(xyz=xyz, seen_by=points_by_frame(model, len(shown))[span]),
            self.density,
            lambda share_done: report("dense depth", 0.65 + 0.35 * share_done),
        )
        rows = shows[kept.start : kept.stop] - span.start  # of each frame
        return Reconstruction(
            depth_units=dense.depth_units if len(dense.depth_units) == len(kept) else dense.depth_units[rows],
            intrinsics=intrinsics,
            T_world_camera=T_world_camera[rows],
            is_metric=False,
            kept=kept,
            quality={
                "reprojection_error_px": model.reprojection_error_px * W / model.intrinsics.width_px,
                "registered_share": float(is_placed.mean()),
                "inlier_share": model.inlier_share,
                "num_points": float(len(xyz)),
                "measured_depth_share": dense.measured_share,
            },
            warnings=_warnings(model, clip.start_frame, kept, is_placed, dense.measured_share),
        )

    def _refuse_weak_model(self, model: SparseModel, source: str, num_keyframes: int) -> None:
        num_placed, num_points = len(model.keyframe_idx), len(model.xyz)
        if num_placed < self.min_registered_share * num_keyframes or num_points < MIN_POINTS:
            raise InputError(
                f"{source}: structure from motion placed {num_placed} of {num_keyframes} keyframes on {num_points} "
                f"points: want {self.min_registered_share:.0%} of them on {MIN_POINTS} points; {ADVICE}"
            )


def _refuse_few_frames(source: str, num_frames: int, num_shown: int) -> None:
    if num_frames < MIN_FRAMES:
        raise InputError(f"{source}: {num_frames} frames: want at least {MIN_FRAMES} for sfm; {ADVICE}")
    if num_shown == 1:
        raise InputError(
            f"{source}: all {num_frames} frames show the same picture, the camera stands still: "
            f"want one that moves; {ADVICE}"
        )
    if num_shown < MIN_FRAMES:
        raise InputError(
            f"{source}: {num_frames} frames show {num_shown} pictures, again and again: "
            f"want at least {MIN_FRAMES} for sfm; {ADVICE}"
        )


def _refuse_without_parallax(clip: Clip) -> None:
    motion = camera_motion(clip)
    if not motion.is_moving:
        raise InputError(
            f"{clip.source}: {motion.why_still}, so sfm cannot tell depth: want a camera that moves; {ADVICE}"
        )


def _warnings(
    model: SparseModel, start_frame: int, kept: range, is_placed: NDArray[np.bool_], measured_share: float
) -> tuple[str, ...]:
    num_frames = len(is_placed)
    left_out = np.setdiff1d(np.arange(num_frames), kept)
    interpolated = kept.start + np.flatnonzero(~is_placed[kept.start : kept.stop])
    found = []
    if len(left_out):
        found.append(
            f"{len(left_out)} of {num_frames} frames are left out, because the camera was not found there: "
            f"{in_words(start_frame + left_out)}"
        )
    if len(interpolated):
        found.append(
            f"{len(interpolated)} of {num_frames} frames have poses interpolated between those around them: "
            f"{in_words(start_frame + interpolated)}"
        )
    if model.reprojection_error_px > 1.0:
        found.append(
            f"reprojection error {model.reprojection_error_px:.2f} px: lens distortion, rolling shutter or motion"
        )
    if measured_share < 0.3:
        found.append(f"only {measured_share:.0%} of the depth is measured, the rest is filled from around it")
    return tuple(found)


def run_colmap(clip: Clip, keyframe_idx: NDArray[np.int64], side_px: int, report: Progress) -> SparseModel:
    """Run `colmap_worker` on the keyframes and read its largest model.

    Raises:
        InputError: if it finds none, or fails.
    """
    H, W = clip.frames_u8.shape[1:3]
    scale = min(1.0, side_px / max(H, W))
    width_px, height_px = max(1, round(W * scale)), max(1, round(H * scale))
    guess = clip.intrinsics or Intrinsics.from_fov(2 * np.arctan(0.5 / 1.2), W, H)  # COLMAP's guess: f = 1.2 W
    guess = guess.resized(width_px, height_px)
    job = {
        "focal_px": [guess.fx_px, guess.fy_px],
        "principal_point_px": [guess.cx_px, guess.cy_px],
        "is_calibrated": clip.intrinsics is not None,
    }
    with tempfile.TemporaryDirectory(prefix="inspatio-sfm-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for i in keyframe_idx:
            image = cv2.resize(clip.frames_u8[i], (width_px, height_px), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / "images" / f"{i:06d}.bmp"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        (folder / "job.json").write_text(json.dumps(job))
        _run_worker(folder, clip.source, report)
        if not (folder / "model.npz").exists():
            raise InputError(
                f"{clip.source}: structure from motion placed 0 of {len(keyframe_idx)} keyframes: "
                f"no two of them show enough of the same place; {ADVICE}"
            )
        with np.load(folder / "model.npz", allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    (fx_px, fy_px), (cx_px, cy_px) = found["focal_px"], found["principal_point_px"]
    try:
        intrinsics = Intrinsics(
            fx_px=float(fx_px),
            fy_px=float(fy_px),
            cx_px=float(cx_px),
            cy_px=float(cy_px),
            width_px=width_px,
            height_px=height_px,
        )
        T_camera_world = check_poses([np.vstack([T, [0, 0, 0, 1]]) for T in found["T_camera_world"]])
    except InputError as error:
        raise InputError(f"{clip.source}: structure from motion found no camera that can be; {ADVICE}") from error
    return SparseModel(
        keyframe_idx=found["image_idx"],
        T_camera_world=T_camera_world,
        intrinsics=intrinsics,
        xyz=found["xyz"],
        seen_in=found["seen_in"],
        point_idx=found["point_idx"],
        xy_px=found["xy_px"],
        reprojection_error_px=float(found["reprojection_error_px"]),
        inlier_share=float(found["inlier_share"]),
    )


def _run_worker(folder: Path, source: str, report: Progress) -> None:
    """Run the worker to its end; its stdout is progress, its stderr goes to the log."""
    command = [sys.executable, "-m", WORKER, str(folder)]
    log_path = folder / "log.txt"
    with log_path.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as worker:
        try:
            for line in worker.stdout or ():
                stage, share_done = line.split()
                start, stop = STAGES[stage]
                report(stage, start + (stop - start) * float(share_done))
        except BaseException:
            worker.kill()
            raise
    log_text = log_path.read_text().strip()
    logger.debug("colmap: %s", log_text)
    if worker.returncode != 0:
        raise InputError(
            f"{source}: structure from motion broke off (COLMAP ended with exit code {worker.returncode}); {ADVICE}"
        ) from RuntimeError(log_text)


def place_all_frames(
    frames_u8: NDArray[np.uint8], model: SparseModel, side_px: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Poses of frames: the keyframes' own; the others from points tracked out of the nearest keyframes.

    Returns:
        T_world_camera [T, 4, 4], and which frames were placed [T]; the poses of the others are no more than a start.
    """
    num_frames = len(frames_u8)
    keyframes = model.keyframe_idx
    T_world_camera = interpolate_poses(inverse(model.T_camera_world), keyframes, np.arange(num_frames))
    placed = np.isin(np.arange(num_frames), keyframes)
    grey_u8 = grey_frames(frames_u8, side_px)
    for frame_idx in np.flatnonzero(~placed):
        after = int(np.searchsorted(keyframes, frame_idx))
        rows = [row for row in (after - 1, after) if 0 <= row < len(keyframes)]
        tracked = [_track_from_keyframe(grey_u8, model, row, int(frame_idx)) for row in rows]
        xyz, xy_px = (np.concatenate(parts) for parts in zip(*tracked, strict=True))
        T_camera_world = solve_pose(xyz, xy_px, model.intrinsics.K_px, inverse(T_world_camera[frame_idx]))
        if T_camera_world is not None:
            T_world_camera[frame_idx] = inverse(T_camera_world)
            placed[frame_idx] = True
    return T_world_camera, placed


def longest_stretch(placed_idx: NDArray[np.int64], max_gap: int) -> range:
    """The longest stretch of frames that begins and ends with placed ones and lacks at most `max_gap` in a row."""
    stretches = np.split(placed_idx, np.flatnonzero(np.diff(placed_idx) > max_gap + 1) + 1)
    first, last = max(((int(idxs[0]), int(idxs[-1])) for idxs in stretches), key=lambda ends: ends[1] - ends[0])
    return range(first, last + 1)


def with_gaps_filled(
    T_world_camera: NDArray[np.float64], is_placed: NDArray[np.bool_], frame_idx: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Poses of the frames that were not placed, from those on both sides. [T, 4, 4], [T], [T]"""
    filled = T_world_camera.copy()
    filled[~is_placed] = interpolate_poses(T_world_camera[is_placed], frame_idx[is_placed], frame_idx[~is_placed])
    return filled


def in_words(idxs: NDArray[np.int64]) -> str:
    """Numbers that rise, such as "3, 7 to 9"; many stretches are cut short."""
    stretches = np.split(idxs, np.flatnonzero(np.diff(idxs) > 1) + 1)
    words = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in stretches]
    return ", ".join(words[:MAX_NAMED] + ["..."] * (len(words) > MAX_NAMED))


def _track_from_keyframe(
    grey_u8: NDArray[np.uint8], model: SparseModel, row: int, frame_idx: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of a keyframe tracked to another frame: world points [n, 3] and pixels [n, 2]."""
    keyframe = int(model.keyframe_idx[row])
    is_seen = model.seen_in == row
    xyz, start_px = model.xyz[model.point_idx[is_seen]], model.xy_px[is_seen].astype(np.float32)
    step = 1 if frame_idx > keyframe else -1
    end_px, survived = follow_points(grey_u8[[*range(keyframe, frame_idx, step), frame_idx]], start_px)
    return xyz[survived], end_px.astype(np.float64)


def solve_pose(
    xyz: NDArray[np.float64], xy_px: NDArray[np.float64], K_px: NDArray[np.float64], guess: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """T_camera_world from points and pixels, or None when too few agree."""
    if len(xyz) < MIN_PNP_POINTS:
        return None
    rotation, translation = cv2.Rodrigues(guess[:3, :3])[0], guess[:3, 3:].copy()
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        xyz, xy_px, K_px, None, rotation, translation, useExtrinsicGuess=True, reprojectionError=PNP_ERROR_PX
    )
    if not found or inliers is None or len(inliers) < max(MIN_PNP_POINTS, 0.4 * len(xyz)):
        return None
    rows = np.asarray(inliers[:, 0], dtype=np.int64)
    rotation, translation = cv2.solvePnPRefineLM(xyz[rows], xy_px[rows], K_px, None, rotation, translation)
    return pose_from(cv2.Rodrigues(rotation)[0], translation[:, 0])


def leveled(
    T_world_camera: NDArray[np.float64], xyz: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same scene with y along gravity and the first camera at the origin, looking along +z when level."""
    down = gravity_direction(T_world_camera, xyz)
    R = leveling_rotation(down, T_world_camera[0, :3, 2])
    T_new_old = pose_from(R, -R @ T_world_camera[0, :3, 3])
    return T_new_old @ T_world_camera, xyz @ R.T + T_new_old[:3, 3]


def points_by_frame(model: SparseModel, num_frames: int) -> list[NDArray[np.int64]]:
    """Indices of the points that the keyframe nearest to each frame sees. [T] of [n]

    Points seen only a few times are left out, if there are others: most of what moves by itself is among them.
    """
    num_keyframes = len(model.keyframe_idx)
    is_steady = np.bincount(model.point_idx, minlength=len(model.xyz)) >= min(MIN_POINT_VIEWS, num_keyframes)
    is_kept = is_steady[model.point_idx] if is_steady.sum() >= MIN_POINTS else np.ones(len(model.point_idx), bool)
    seen_by_row = [model.point_idx[is_kept & (model.seen_in == row)] for row in range(num_keyframes)]
    return [seen_by_row[int(np.abs(model.keyframe_idx - t).argmin())] for t in range(num_frames)]
