"""Forward flow: where each pixel's surface point is one frame later, exactly."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from inspatio_sim.motion.camera import Intrinsics, check_poses, inverse
from inspatio_sim.scenes.raycast import Views
from inspatio_sim.scenes.scene import Scene


def forward_flow(
    scene: Scene, views: Views, intrinsics: Intrinsics, T_world_camera: ArrayLike, time_s: ArrayLike
) -> Tensor:
    """Motion in the image from every frame to the next, by camera and solids together, hidden or not.

    Args:
        scene: what was rendered.
        views: what `render` returned for the other arguments. F frames
        intrinsics: of the cameras.
        T_world_camera: camera poses. [F, 4, 4]
        time_s: when each camera looked. [F]

    Returns:
        (dx, dy) in pixels, NaN where nothing was hit or the point goes behind the camera. [F - 1, H, W, 2]
    """
    poses = check_poses(T_world_camera, "T_world_camera")
    device = views.depth_m.device
    relative = torch.tensor(inverse(poses[1:]) @ poses[:-1], dtype=torch.float32, device=device)
    to_next_camera = torch.tensor(inverse(poses[1:])[:, :3, :3], dtype=torch.float32, device=device)
    shift_m = _solid_shifts(scene, torch.tensor(np.asarray(time_s), dtype=torch.float32)).to(device)  # [F-1, S, 3]

    x = torch.arange(intrinsics.width_px, device=device, dtype=torch.float32)
    y = torch.arange(intrinsics.height_px, device=device, dtype=torch.float32)[:, None]
    depth_m, object_id = views.depth_m[:-1], views.object_id[:-1].long()
    point = torch.stack(  # in this frame's camera. [F-1, H, W, 3]
        [
            (x - intrinsics.cx_px) / intrinsics.fx_px * depth_m,
            (y - intrinsics.cy_px) / intrinsics.fy_px * depth_m,
            depth_m,
        ],
        dim=-1,
    )
    frame = torch.arange(len(depth_m), device=device)[:, None, None]
    moved = torch.einsum("fij,fhwj->fhwi", relative[:, :3, :3], point) + relative[:, None, None, :3, 3]
    moved = moved + torch.einsum("fij,fhwj->fhwi", to_next_camera, shift_m[frame, object_id.clamp(min=0)])
    next_x = moved[..., 0] / moved[..., 2] * intrinsics.fx_px + intrinsics.cx_px
    next_y = moved[..., 1] / moved[..., 2] * intrinsics.fy_px + intrinsics.cy_px
    flow_px = torch.stack([next_x - x, next_y - y], dim=-1)
    is_known = (object_id >= 0) & (moved[..., 2] > 0)
    return torch.where(is_known[..., None], flow_px, torch.nan)


def _solid_shifts(scene: Scene, time_s: Tensor) -> Tensor:
    """How far each solid moves from each time to the next, in the world. [F] -> [F - 1, S, 3]"""
    shifts_m = torch.zeros(len(time_s) - 1, len(scene.solids), 3)
    for place, solid in enumerate(scene.solids):
        motion = getattr(solid, "motion", None)
        if motion is not None:
            shifts_m[:, place] = motion.offset_m(time_s).diff(dim=0)
    return shifts_m
