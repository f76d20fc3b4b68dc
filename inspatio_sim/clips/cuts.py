"""Hard cuts: frames where a video goes on in another scene.

Two frames show one scene if the one explains the other in any of five ways: the same picture; the same picture
out of focus or in noise; half of one found in the other, blurred by a fast turn; a smooth flow from one to the
other; common corners, which survive turns and exposures. A cut is one step between two runs of frames that
nothing explains, where no frame soon after is explained by one from before and neither run is blurred just
there: a whip pan is many such steps, or blurred; a flash comes back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from inspatio_sim.clips.video_pixels import TimedFrame

Gray = NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX = 160, 90  # of the thumbnails
NUM_AROUND = 5  # frames that are looked at before and after a step: a flash, or a hand over the lens, is shorter

# Measured on clips of a table, a street, a cup and walls: different scenes reach 0.07, 0.34, 0.88, 0.23 and 5
_SAME_DETAIL, _DETAIL_PX = 0.4, 4.0  # correlation of what is finer than this
_SAME_LOOK, _LOOK_SIZE_PX = 0.9, (40, 22)  # correlation of the coarse picture
_SAME_HALF, _SOFT_SIZE_PX, _SOFT_PX = 0.93, (80, 45), 2.5  # correlation of a half, wherever it is in the other
_SAME_FLOW, _FLOW_ERROR_PX = 0.45, 1.0  # share of pixels whose flow forth and back ends where it began
_SAME_CORNERS, _CORNER_ERROR_PX, _MAX_CORNERS = 9, 4.0, 400  # number that one affine map moves
_MIN_CORNER_AREA = 0.04  # of the picture between those: a station's logo alone stays over any cut
_MATCH_RATIO = 0.8  # Lowe's
_BLURRED = 0.6  # of the most detail in a run
_FLAT = 4.0  # standard deviation of the gray values of a black or white frame, which shows no scene


def is_same_scene(a: Gray, b: Gray) -> bool:
    """Whether two thumbnails show one scene, from cameras not too far apart. [HEIGHT_PX, WIDTH_PX]"""
    return (
        _correlation(_detail(a), _detail(b)) >= _SAME_DETAIL
        or _correlation(_coarse(a), _coarse(b)) >= _SAME_LOOK
        or _half_correlation(_soft(a), _soft(b)) >= _SAME_HALF
        or _flow_share(a, b) >= _SAME_FLOW
        or _has_common_corners(a, b)
    )


@dataclass(frozen=True)
class _Look:
    time_s: float
    thumbnail: Gray
    is_like_last: bool

    @property
    def detail(self) -> float:
        """How much fine structure there is."""
        return float(_detail(self.thumbnail).std())


class CutFinder:
    """Finds the cuts of frames that come one after another; a few are held."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.cuts_s: list[float] = []  # when the first frame of another scene is shown
        self._looks: list[_Look] = []
        self._next = 0  # the look that is judged next

    def watch(self, timed_frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        """Hand frames on as they are."""
        for time_s, frame in timed_frames:
            # any matrix that swscale knows: only the brightness is taken
            options: dict[str, Any] = {"src_colorspace": Colorspace.ITU709, "interpolation": "AREA"}
            small = frame.reformat(WIDTH_PX, HEIGHT_PX, "gray", **options)
            self.add(time_s, np.asarray(small.to_ndarray(), np.uint8))
            yield time_s, frame

    def add(self, time_s: float, thumbnail: Gray) -> None:
        """See the next frame. [HEIGHT_PX, WIDTH_PX]"""
        if thumbnail.std() < _FLAT:
            return
        is_like_last = not self._looks or is_same_scene(self._looks[-1].thumbnail, thumbnail)
        self._looks.append(_Look(time_s, thumbnail, is_like_last))
        self._judge(NUM_AROUND)

    def finish(self) -> list[float]:
        """All cuts, after the last frame."""
        self._judge(0)
        return self.cuts_s

    def _judge(self, num_after: int) -> None:
        """Judge the looks that have so many others after them, and forget the oldest."""
        while self._next < len(self._looks) - num_after:
            if self._is_cut(self._next):
                self.cuts_s.append(self._looks[self._next].time_s)
            self._next += 1
            if self._next > NUM_AROUND:
                self._looks.pop(0)
                self._next -= 1

    def _is_cut(self, idx: int) -> bool:
        """Whether the look begins a scene."""
        looks = self._looks
        is_steady = all(look.is_like_last for look in (*looks[max(idx - 1, 0) : idx], *looks[idx + 1 : idx + 2]))
        if looks[idx].is_like_last or not is_steady:
            return False
        before, after = looks[max(idx - NUM_AROUND, 0) : idx][::-1], looks[idx : idx + NUM_AROUND]
        if _is_blurred(before, _run_length(before[:-1])) or _is_blurred(after, _run_length(after[1:])):
            return False
        return not (
            any(is_same_scene(before[0].thumbnail, look.thumbnail) for look in after[1:])
            or any(is_same_scene(look.thumbnail, after[0].thumbnail) for look in before[1:])
        )


def _run_length(looks: list[_Look]) -> int:
    """How many of them, from the first on, are like the one before, and one more."""
    return 1 + sum(itertools.accumulate((look.is_like_last for look in looks), min))


def _is_blurred(looks: list[_Look], num_in_run: int) -> bool:
    """Whether the first is, beside the others of its run."""
    return looks[0].detail < _BLURRED * max(look.detail for look in looks[:num_in_run])


def _detail(thumbnail: Gray) -> NDArray[np.float32]:
    picture = thumbnail.astype(np.float32)
    return picture - cv2.GaussianBlur(picture, (0, 0), _DETAIL_PX)


def _coarse(thumbnail: Gray) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(thumbnail, _LOOK_SIZE_PX, interpolation=cv2.INTER_AREA), np.float32)


def _soft(thumbnail: Gray) -> NDArray[np.float32]:
    small = np.asarray(cv2.resize(thumbnail, _SOFT_SIZE_PX, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _SOFT_PX), np.float32)


def _half_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of the left or right half of one picture with where it fits best in the other."""
    height_px, width_px = a.shape
    rows, columns = slice(height_px // 6, -(height_px // 6)), 9 * width_px // 20
    pairs = [(half, other) for one, other in ((a, b), (b, a)) for half in (one[rows, :columns], one[rows, -columns:])]
    return max(float(cv2.matchTemplate(other, half, cv2.TM_CCOEFF_NORMED).max()) for half, other in pairs)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(cv2.matchTemplate(a, b, cv2.TM_CCOEFF_NORMED)[0, 0])


def _flow_share(a: Gray, b: Gray) -> float:
    """Share of the pixels that flow forth and back brings home."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    forth, back = flow.calc(a, b, None), flow.calc(b, a, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    grid = np.stack(np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX)), -1).astype(np.float32)
    there = grid + forth
    returned = cv2.remap(back, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderValue=(np.inf, np.inf))
    return float((np.linalg.norm(forth + returned, axis=-1) < _FLOW_ERROR_PX).mean())


def _has_common_corners(a: Gray, b: Gray) -> bool:
    sift = cv2.SIFT.create(nfeatures=_MAX_CORNERS)
    (corners_a, looks_a), (corners_b, looks_b) = sift.detectAndCompute(a, None), sift.detectAndCompute(b, None)
    if min(len(corners_a), len(corners_b)) < _SAME_CORNERS:
        return False
    pairs = cv2.BFMatcher().knnMatch(looks_a, looks_b, k=2)
    matches = [best for best, second in pairs if best.distance < _MATCH_RATIO * second.distance]
    if len(matches) < _SAME_CORNERS:
        return False
    from_px = np.array([corners_a[match.queryIdx].pt for match in matches], np.float32)
    to_px = np.array([corners_b[match.trainIdx].pt for match in matches], np.float32)
    _, is_inlier = cv2.estimateAffine2D(from_px, to_px, ransacReprojThreshold=_CORNER_ERROR_PX)
    inliers_px = from_px[is_inlier.ravel() > 0]
    hull_area_px = cv2.contourArea(cv2.convexHull(inliers_px)) if len(inliers_px) >= _SAME_CORNERS else 0.0
    return hull_area_px >= _MIN_CORNER_AREA * WIDTH_PX * HEIGHT_PX
