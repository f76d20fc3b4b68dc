"""What geometry knows of a clip's target: the reference, warped into the target's cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.motion.camera import inverse
from inspatio_sim.training.data.sample import Sample


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """The reference as the target's cameras would see it. Black where unknown."""

    render_u8: NDArray[np.uint8]  # [T, H, W, 3]
    is_rendered: NDArray[np.bool_]  # [T, H, W]


def target_view(sample: Sample) -> TargetView:
    """Warp every reference frame into the target's camera of the same moment."""
    renders = [
        forward_warp(frame, depth_m, sample.intrinsics, sample.intrinsics, inverse(T_target) @ T_reference)
        for frame, depth_m, T_reference, T_target in zip(
            sample.reference_u8,
            sample.reference_depth_m,
            sample.T_world_reference,
            sample.T_world_target,
            strict=True,
        )
    ]
    return TargetView(
        render_u8=np.stack([render.rgb_u8 for render in renders]),
        is_rendered=np.stack([render.is_known for render in renders]),
    )
