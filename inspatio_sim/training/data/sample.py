"""One training clip: a scene filmed twice, along the reference path and along the target path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.motion.camera import Array, Intrinsics


@dataclass(frozen=True, kw_only=True)
class Sample:
    """T synchronised frames of two cameras with the same intrinsics."""

    reference_u8: NDArray[np.uint8]  # [T, H, W, 3]
    target_u8: NDArray[np.uint8]  # [T, H, W, 3]
    reference_depth_m: NDArray[np.float32]  # z-depth, 0 = unknown. [T, H, W]
    target_depth_m: NDArray[np.float32]  # [T, H, W]
    intrinsics: Intrinsics
    T_world_reference: Array  # [T, 4, 4]
    T_world_target: Array  # [T, 4, 4]
    caption: str


class ClipDataset(Protocol):
    """Clips by index, for `torch.utils.data`; the same index always gives the same clip."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
