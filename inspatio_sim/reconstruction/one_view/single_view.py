"""One picture cut into level ground, upright things and far background, and the depth that follows.

Lengths are in camera heights. A ground pixel's depth follows from the horizon alone; a thing stands upright
at the forward distance of the ground pixel under it; far things get a multiple of the farthest contact.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction.one_view.horizon import Horizon

Mask = NDArray[np.bool_]
Image32 = NDArray[np.float32]

_WORK_SIDE_PX = 256  # the picture is cut at this size
_BOTTOM_SHARE = 0.06  # of the rows, from below: taken as ground
_UNLIKE = 12.0  # Lab distance (lightness counts a third) of what is taken as no ground to begin with
_GRABCUT_ROUNDS = 2
_MIN_GROUND_SHARE = 0.01  # of the picture: smaller islands of ground are none
_MIN_THING_SHARE = 0.002  # smaller things are marks on the ground
_SHADOW_CHROMA = 7.0  # Lab: as coloured as the ground to within this ...
_SHADOW_LIGHTNESS = 13.0  # ... and not black
_MAX_HEIGHTS = 25.0  # ground farther away than this is not told apart
_SLENDER, _NUM_WIDTHS = 0.3, 12  # width over height of the most slender near thing: a standing person
_FAR_FACTOR = 3.0  # far things are this many times farther than the farthest contact with the ground
_DARK_LIGHTNESS = 12.0  # Lab: night sky, black rooms
_SKY_SPREAD, _SKY_YELLOW, _SKY_LIGHTNESS = 5.0, -6.0, 92.0  # Lab: smooth, and blue or nearly white


def depth_of_view(rgb_u8: NDArray[np.uint8], camera: Intrinsics, horizon: Horizon) -> tuple[Image32, float]:
    """Guess the depth of one picture.

    Args:
        rgb_u8: the picture. [H, W, 3]
        camera: its intrinsics.
        horizon: its tilt.

    Returns:
        Depth in camera heights [H, W], and the share of the picture that is ground.
    """
    height_px, width_px = rgb_u8.shape[:2]
    shrink = min(1.0, _WORK_SIDE_PX / max(height_px, width_px))
    size = max(round(width_px * shrink), 8), max(round(height_px * shrink), 8)
    small_u8 = cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    small_camera = camera.resized(*size)
    is_ground = ground_mask(small_u8, small_camera, horizon)
    forward = standing_distance(small_u8, is_ground, small_camera, horizon)

    ground_weight = cv2.resize(is_ground.astype(np.float32), (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    forward = cv2.resize(forward, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
    y_n = (np.arange(height_px) - camera.cy_px) / camera.fy_px
    upright_depth = forward / _forward(y_n, horizon)[:, None]
    is_ground_px = (ground_weight > 0.5) | (forward == 0)
    depth = np.where(is_ground_px, _ground_depth(y_n, horizon)[:, None], upright_depth)
    return depth.astype(np.float32), float(is_ground.mean())


def ground_mask(rgb_u8: NDArray[np.uint8], camera: Intrinsics, horizon: Horizon) -> Mask:
    """Grow the ground from the bottom of the picture up to the horizon at most, by colour (GrabCut). [H, W]"""
    height_px = len(rgb_u8)
    horizon_row = int(np.clip(np.ceil(horizon.row_px(camera)) + 1, 0, height_px))
    bottom_row = round(height_px * (1 - _BOTTOM_SHARE))
    lab = cv2.cvtColor(rgb_u8.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    labels_u8 = np.full(rgb_u8.shape[:2], cv2.GC_PR_FGD, np.uint8)
    if horizon_row < height_px // 20:  # nothing is sure to be no ground: start from what is unlike most of it
        middle = np.median(lab.reshape(-1, 3), axis=0)
        labels_u8[np.linalg.norm((lab - middle) / [3, 1, 1], axis=-1) > _UNLIKE] = cv2.GC_PR_BGD
    labels_u8[bottom_row:][labels_u8[bottom_row:] == cv2.GC_PR_FGD] = cv2.GC_FGD
    labels_u8[:horizon_row] = cv2.GC_BGD
    is_ground = labels_u8 % 2 > 0  # the odd labels are foreground
    if is_ground.any() and not is_ground.all():
        cv2.setRNGSeed(0)
        mixtures = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(rgb_u8, labels_u8, (0, 0, 1, 1), *mixtures, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
        is_ground = labels_u8 % 2 > 0
    if is_ground.any():
        ground_lab = np.median(lab[is_ground], axis=0)
        is_shadow = np.linalg.norm((lab - ground_lab)[..., 1:], axis=-1) < _SHADOW_CHROMA
        is_shadow &= (lab[..., 0] > _SHADOW_LIGHTNESS) & (lab[..., 0] < ground_lab[0])
        if horizon_row > 0:  # what rises above the horizon is a wall, however much it looks like a shadow
            is_shadow &= ~_reaches_top(~is_ground)
        is_ground |= is_shadow
    is_ground[:horizon_row] = False
    is_ground &= ~_islands(is_ground, _MIN_GROUND_SHARE)
    is_ground[horizon_row:] |= _islands(~is_ground, _MIN_THING_SHARE)[horizon_row:]
    return is_ground


def standing_distance(rgb_u8: NDArray[np.uint8], is_ground: Mask, camera: Intrinsics, horizon: Horizon) -> Image32:
    """Forward distance of everything that is not ground, in camera heights; 0 on the ground. [H, W]

    What ends below the horizon has ground all around it: it stands on its lowest part. All else is cut
    into segments, each at the median distance of the ground under its columns.
    """
    height_px = len(rgb_u8)
    if is_ground.all():
        return np.zeros(is_ground.shape, np.float32)
    y_n = (np.arange(height_px) + 0.5 - camera.cy_px) / camera.fy_px  # ground begins half a pixel below a contact
    row_distance = _ground_depth(y_n, horizon) * _forward(y_n, horizon)
    contact_row = _contact_rows(is_ground)
    horizon_row = horizon.row_px(camera)

    things, stats = _parts(~is_ground)
    is_tall = (stats[:, cv2.CC_STAT_TOP] <= max(horizon_row, 0))[things] & ~is_ground
    distance = np.zeros(is_ground.shape, np.float32)
    for thing in np.unique(things[~is_ground & ~is_tall]):
        in_thing = things == thing
        distance[in_thing] = row_distance[int(np.percentile(contact_row[in_thing], 95))]
    if is_tall.any():
        profile = contact_row[int(np.clip(horizon_row, 0, height_px - 1))]
        rows = np.arange(height_px)[:, None]
        contact = row_distance[np.where(rows <= profile, _contact_by_height(profile, height_px), contact_row)]
        far = _FAR_FACTOR * float(np.percentile(contact[is_tall], 95))
        segments = felzenszwalb(rgb_u8, scale=120, sigma=0.6, min_size=40)
        _, segments[is_tall] = np.unique(segments[is_tall], return_inverse=True)
        segments[~is_tall] = -1
        labels = np.arange(segments.max() + 1)
        per_segment = ndimage.median(contact, segments, labels)
        per_segment = np.where(_is_far(segments, labels, rgb_u8, horizon_row), far, per_segment)
        distance[is_tall] = per_segment[segments[is_tall]]
    return distance


def _contact_rows(is_ground: Mask) -> NDArray[np.int64]:
    """For each pixel the last row of the run of non-ground that it is in, going down. [H, W]"""
    contact_row = np.broadcast_to(np.arange(len(is_ground))[:, None], is_ground.shape).copy()
    for row in range(len(is_ground) - 2, -1, -1):
        contact_row[row] = np.where(is_ground[row + 1], row, contact_row[row + 1])
    return contact_row


def _contact_by_height(profile: NDArray[np.int64], height_px: int) -> NDArray[np.int64]:
    """The contact row of each pixel, given that of each column. [H, W]

    A thing that stands nearer than its surroundings does not reach up for ever: above a few times its own
    width the surroundings' contact counts (a morphological opening as wide as a share of the height).
    """
    rise = np.maximum(profile[None] - np.arange(height_px)[:, None], 0)
    widths = np.unique(np.geomspace(1, max(_SLENDER * height_px, 1), _NUM_WIDTHS).astype(int))
    opened = np.stack([ndimage.grey_opening(profile, size=int(width), mode="nearest") for width in widths])
    level = np.searchsorted(widths, _SLENDER * rise, side="right") - 1
    opened = opened.astype(np.int64)
    return np.take_along_axis(opened, np.clip(level, 0, len(widths) - 1), axis=0)


def _is_far(segments: NDArray, labels: NDArray, rgb_u8: NDArray[np.uint8], horizon_row: float) -> Mask:
    """Which segments reach the top of the picture and are sky, or the dark behind a scene. [L]

    Sky lies above the horizon, is smooth, and blue or white; a smooth wall of another colour is none.
    """
    lab = cv2.cvtColor(rgb_u8.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    rows = np.broadcast_to(np.arange(len(rgb_u8))[:, None], segments.shape)
    lightness, _, yellow = (ndimage.median(channel, segments, labels) for channel in np.moveaxis(lab, -1, 0))
    is_above = ndimage.median(rows, segments, labels) < horizon_row
    is_smooth = ndimage.standard_deviation(lab[..., 0], segments, labels) < _SKY_SPREAD
    is_sky = is_above & is_smooth & ((yellow < _SKY_YELLOW) | (lightness > _SKY_LIGHTNESS))
    is_dark = (lightness < _DARK_LIGHTNESS) & (is_above | (horizon_row <= 0))
    return np.isin(labels, segments[0]) & (is_sky | is_dark)


def _forward(y_n: NDArray, horizon: Horizon) -> NDArray:
    """How far one unit of depth goes forward in the world, for rows y_n = (y - cy) / fy."""
    return np.maximum(np.cos(horizon.tilt_rad) - np.sin(horizon.tilt_rad) * y_n, 0.05)


def _ground_depth(y_n: NDArray, horizon: Horizon) -> NDArray:
    """z-depth of the ground in camera heights, for rows y_n."""
    down = np.cos(horizon.tilt_rad) * y_n + np.sin(horizon.tilt_rad)
    return 1 / np.maximum(down, 1 / _MAX_HEIGHTS)


def _reaches_top(mask: Mask) -> Mask:
    """The parts of a mask that are connected to the top row."""
    parts, _ = _parts(mask)
    return mask & np.isin(parts, np.unique(parts[0]))


def _islands(mask: Mask, max_share: float) -> Mask:
    """The connected parts of a mask that cover at most this share of the picture."""
    parts, stats = _parts(mask)
    return mask & (stats[:, cv2.CC_STAT_AREA] <= max_share * mask.size)[parts]


def _parts(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the connected parts of a mask from 1 [H, W]; OpenCV's statistics of each part [N, 5]."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return parts.astype(np.intp), stats.astype(np.intp)
