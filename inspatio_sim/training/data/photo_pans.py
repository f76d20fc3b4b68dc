"""Short clips of photographs that a camera pans, zooms and rolls over: what natural pictures look like in motion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PAN_PX = 3.0  # a frame
MAX_ZOOM = 0.02  # a frame, of the logarithm
MAX_ROLL_RAD = 0.02  # a frame
SHRUNK = (1.0, 4.0)  # pixels of the photograph under a pixel of the clip


def pan_over(
    photos_u8: Sequence[NDArray[np.uint8]], rng: np.random.Generator, *, num_frames: int, size_px: tuple[int, int]
) -> NDArray[np.uint8]:
    """Frames of one photograph, drawn by rng, under a camera that moves steadily or not at all.

    Args:
        photos_u8: to choose from. Each [h, w, 3]
        rng: what decides.
        num_frames: T.
        size_px: height H and width W.

    Returns:
        Mirrored at the photograph's border. [T, H, W, 3]
    """
    photo = photos_u8[int(rng.integers(len(photos_u8)))]
    height_px, width_px = size_px
    shrunk = math.exp(rng.uniform(math.log(SHRUNK[0]), math.log(SHRUNK[1])))
    smooth = cv2.resize(photo, None, fx=1 / shrunk, fy=1 / shrunk, interpolation=cv2.INTER_AREA)
    speed = rng.random() ** 2 * (rng.random() < 0.9)  # slow ones are more frequent
    pan_px, zoom, roll_rad = (
        speed * rng.uniform(-1, 1, 2) * MAX_PAN_PX,
        speed * rng.uniform(-1, 1) * MAX_ZOOM,
        speed * rng.uniform(-1, 1) * MAX_ROLL_RAD,
    )
    centre = rng.random(2) * (smooth.shape[1], smooth.shape[0])
    turn_rad = rng.uniform(-0.1, 0.1)
    frames = []
    for t in range(num_frames):
        scale, angle = math.exp(zoom * t), turn_rad + roll_rad * t
        rotation = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.array([width_px, height_px]) / 2
        shift = centre + pan_px * t - rotation @ middle
        photo_from_frame = np.concatenate([rotation, shift[:, None]], axis=1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(
            cv2.warpAffine(smooth, photo_from_frame, (width_px, height_px), flags=flags, borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(frames)
