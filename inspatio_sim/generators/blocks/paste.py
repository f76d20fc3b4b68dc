"""Rendered pixels laid over generated ones: what is known stays as sharp as it was filmed.

Also cracks in renders closed, which a generator might take for dark lines of the place.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FEATHER_PX = 3.0  # from the edge of what is rendered to where it alone is seen
NEIGHBOURS = np.ones((3, 3), np.uint8)


def close_cracks(
    render_u8: NDArray[np.uint8], is_rendered: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Fill what is unknown between rendered pixels and at most two pixels wide, by the mean of its neighbours.

    Such cracks open where points that were seen from one place are rendered from another.

    Args:
        render_u8: [F, H, W, 3]
        is_rendered: [F, H, W]

    Returns:
        The same with cracks closed.
    """
    closed_u8, is_closed = render_u8.copy(), is_rendered.copy()
    for i, mask in enumerate(is_rendered.astype(np.uint8)):
        is_crack = (cv2.morphologyEx(mask, cv2.MORPH_CLOSE, NEIGHBOURS) & ~mask) > 0
        if is_crack.any():
            sums = cv2.boxFilter(render_u8[i] * mask[..., None], cv2.CV_32F, (3, 3), normalize=False)
            counts = cv2.boxFilter(mask, cv2.CV_32F, (3, 3), normalize=False)
            closed_u8[i, is_crack] = np.rint(sums[is_crack] / counts[is_crack, None])
            is_closed[i] |= is_crack
    return closed_u8, is_closed


def paste_renders(
    frames_u8: NDArray[np.uint8], render_u8: NDArray[np.uint8], is_rendered: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Generated frames under their renders; the change from one to the other is gradual.

    Args:
        frames_u8: as generated. [F, H, W, 3]
        render_u8: as rendered. [F, H, W, 3]
        is_rendered: [F, H, W]

    Returns:
        [F, H, W, 3]
    """
    pasted = np.empty_like(frames_u8)
    for i, mask in enumerate(is_rendered.astype(np.uint8)):
        weight = np.ones(mask.shape, np.float32)
        if not mask.all():  # else there is no edge to measure from
            distance_px = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_3)
            weight = np.minimum(distance_px / FEATHER_PX, 1, dtype=np.float32)
        generated = frames_u8[i].astype(np.float32)
        pasted[i] = np.rint(generated + weight[..., None] * (render_u8[i] - generated))
    return pasted
