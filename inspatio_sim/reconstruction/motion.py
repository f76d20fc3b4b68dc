"""Whether the camera moves and shows parallax: a cheap check before anything expensive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip

CameraMotion = Literal["static", "rotating", "moving"]

SIDE_PX = 480  # long side of the compared frames; the limits below are in these pixels
MIN_TRACKS = 60  # fewer are not conclusive
NUM_STARTS = 4  # frames that tracks start from, spread over the clip
NUM_STEPS = 12  # frames that each start is followed through
STATIC_FLOW_PX = 1.5  # less than this is sensor noise and compression
STATIC_SHARE = 0.5  # a camera is static if this share of points stands still (other things may move)
HOMOGRAPHY_ERROR_PX = 1.5
ROTATION_SHARE = 0.95  # if one homography explains this share of the points, there is no usable parallax

REPEAT_SIDE_PX = 120  # long side at which a frame is compared with the one before
REPEAT_PERCENTILES, REPEAT_LEVELS = (99, 99.9), (3, 6)  # of the differences there (of 255): at most these

LK_OPTIONS = {
    "winSize": (21, 21),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
}
MAX_RETURN_ERROR_PX = 0.5  # a point tracked forward and back must end this near its start


@dataclass(frozen=True, kw_only=True)
class MotionReport:
    """How the image moves, measured on tracked corners at a long side of 480 px.

    "rotating" means no parallax: the camera only turns, or sees a single flat or far surface.
    Neither gives depth or the focal length.
    """

    kind: CameraMotion
    num_tracks: int  # corners followed to the end; few of them make `kind` a guess, none: nothing could be followed
    static_share: float  # share of tracks that stay within 1.5 px, median over the starts
    median_flow_px: float  # from a start to where its tracks end, median over the starts
    homography_share: float  # share of tracks that one homography explains
    fundamental_share: float  # share of tracks that one moving camera explains

    @property
    def is_moving(self) -> bool:
        """Whether structure from motion can work."""
        return self.kind == "moving"

    @property
    def why_still(self) -> str:
        """Why it does not, for people."""
        if self.num_tracks == 0:
            return (
                "nothing in the picture can be followed from frame to frame (too dark, too plain, or another picture)"
            )
        if self.kind == "static":
            return f"the camera stands still ({self.static_share:.0%} of the picture does not move)"
        share = f"one homography explains {self.homography_share:.0%} of the picture"
        return f"no parallax: the camera only turns or the scene is flat ({share})"


def camera_motion(clip: Clip) -> MotionReport:
    """Classify the camera as static, only rotating, or moving through space. Takes about a second.

    Of frames that repeat the one before only the first counts.
    """
    different = np.unique(first_showings(clip.frames_u8))
    if len(different) == 1:
        different = np.arange(len(clip.frames_u8))  # not one moves: say so, rather than that there is nothing to see
    T = len(different)
    stride = max(1, T // 50)
    starts = np.unique(np.linspace(0, max(0, T - 1 - stride), NUM_STARTS).round().astype(int))
    measurements = []
    for start in starts:
        # Tracks run forwards from the first half and backwards from the second, so that every span is long.
        direction = stride if start < T / 2 else -stride
        indices = [i for i in start + direction * np.arange(NUM_STEPS + 1) if 0 <= i < T]
        measured = _track_corners(grey_frames(clip.frames_u8[different[indices]], SIDE_PX))
        if measured is not None:
            measurements.append(measured)
    if not measurements:
        return MotionReport(
            kind="static",
            num_tracks=0,
            static_share=1.0,
            median_flow_px=0.0,
            homography_share=0.0,
            fundamental_share=0.0,
        )
    num_tracks, static_share, flow_px, homography_share, fundamental_share = np.median(measurements, axis=0)
    if static_share >= STATIC_SHARE:
        kind: CameraMotion = "static"
    elif homography_share >= ROTATION_SHARE and homography_share >= fundamental_share - 0.02:
        kind = "rotating"
    else:
        kind = "moving"
    return MotionReport(
        kind=kind,
        num_tracks=int(num_tracks),
        static_share=float(static_share),
        median_flow_px=float(flow_px),
        homography_share=float(homography_share),
        fundamental_share=float(fundamental_share),
    )


def _track_corners(grey_u8: NDArray[np.uint8]) -> tuple[float, ...] | None:
    """Track the corners of the first frame to the last; returns the numbers of a `MotionReport`."""
    corners = cv2.goodFeaturesToTrack(grey_u8[0], 800, 0.005, 7)
    if len(grey_u8) < 2 or corners is None:
        return None
    end_px, survived = follow_points(grey_u8, corners[:, 0])
    if len(survived) < MIN_TRACKS:
        return None
    start_px = corners[survived, 0]
    flow_px = np.linalg.norm(end_px - start_px, axis=1)
    _, in_homography = cv2.findHomography(start_px, end_px, cv2.RANSAC, HOMOGRAPHY_ERROR_PX)
    _, in_fundamental = cv2.findFundamentalMat(start_px, end_px, cv2.FM_RANSAC, HOMOGRAPHY_ERROR_PX, 0.999)
    shares = [0.0 if inliers is None else float(inliers.mean()) for inliers in (in_homography, in_fundamental)]
    return len(start_px), float((flow_px < STATIC_FLOW_PX).mean()), float(np.median(flow_px)), *shares


def first_showings(frames_u8: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each frame the index of the first that shows its picture: its own, unless it repeats the frame before. [T]

    Clips brought to a higher frame rate show each picture several times; encoders leave small differences.
    """
    first = np.zeros(len(frames_u8), np.int64)
    shown = np.zeros(0)
    for frame_idx in range(len(frames_u8)):
        grey = grey_frames(frames_u8[frame_idx : frame_idx + 1], REPEAT_SIDE_PX)[0].astype(np.int16)
        if frame_idx > 0 and np.all(np.percentile(np.abs(grey - shown), REPEAT_PERCENTILES) <= REPEAT_LEVELS):
            first[frame_idx] = first[frame_idx - 1]
        else:
            first[frame_idx], shown = frame_idx, grey
    return first


def grey_frames(frames_u8: NDArray[np.uint8], max_side_px: int) -> NDArray[np.uint8]:
    """Grey copies, the long side at most `max_side_px`. [T, H, W, 3] -> [T, h, w]"""
    height_px, width_px = frames_u8.shape[1:3]
    h, w = grey_size(height_px, width_px, max_side_px)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_u8]
    return np.stack([cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA) for frame in grey])


def grey_size(height_px: int, width_px: int, max_side_px: int) -> tuple[int, int]:
    """(height, width) of those."""
    scale = min(1.0, max_side_px / max(height_px, width_px))
    return max(1, round(height_px * scale)), max(1, round(width_px * scale))


def follow_points(
    grey_u8: NDArray[np.uint8], xy_px: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Track points from the first frame to the last.

    Args:
        grey_u8: frames in the order they are visited. [F, H, W]
        xy_px: points of the first. [N, 2]

    Returns:
        End positions of the surviving tracks [n, 2], and their indices [n].
    """
    size = np.array(grey_u8.shape[:0:-1])  # width, height
    current_px, survived = xy_px.astype(np.float32), np.arange(len(xy_px))
    for previous, following in zip(grey_u8[:-1], grey_u8[1:], strict=True):
        if len(survived) == 0:
            break
        moved, is_found = _flow_of_points(previous, following, current_px)
        back, is_found_back = _flow_of_points(following, previous, moved)
        is_good = is_found & is_found_back & np.all((moved >= 0) & (moved < size), axis=1)
        is_good &= np.linalg.norm(back - current_px, axis=1) < MAX_RETURN_ERROR_PX
        current_px, survived = moved[is_good], survived[is_good]
    return current_px, survived


def _flow_of_points(
    previous_u8: NDArray[np.uint8], following_u8: NDArray[np.uint8], xy_px: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One step of pyramidal Lucas-Kanade: new positions [n, 2], and a mask of found points [n]."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(previous_u8, following_u8, xy_px, np.empty_like(xy_px), **LK_OPTIONS)
    return moved.astype(np.float32), found[:, 0] == 1
