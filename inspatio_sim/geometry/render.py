"""The result of a geometric render."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Render:
    """Colour, depth and where both are known. Leading dimensions as in the call."""

    rgb_u8: NDArray[np.uint8]  # 0 where unknown. [..., H, W, 3]
    depth_m: NDArray[np.float32]  # z-depth, 0 where unknown. [..., H, W]
    is_known: NDArray[np.bool_]  # [..., H, W]
