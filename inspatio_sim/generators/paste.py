"""Rendered pixels laid over generated ones: what is known stays as sharp as it was filmed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FEATHER_PX = 3.0  # from the edge of what is rendered to where it alone is seen


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
