"""A scene seen from one point in all directions, with exact distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, check_pose
from inspatio_sim.scenes.raycast import RAYS_PER_CHUNK_CPU, Tracer
from inspatio_sim.scenes.scene import Scene

MIN_HEIGHT_PX = 16


@dataclass(frozen=True, kw_only=True)
class PanoramaView:
    """An equirectangular picture: its middle looks along the camera's +z, its top up."""

    rgb_u8: NDArray[np.uint8]  # [H, 2 H, 3]
    range_m: NDArray[np.float32]  # distance along the ray, 0 = nothing there. [H, 2 H]


class _AllRoundTracer(Tracer):
    """Unit rays, so that the ray parameter of a hit is its distance."""

    def directions(self, T: Tensor, rows: slice, offset_px: tuple[float, float]) -> Tensor:
        """Rays through some rows of an equirectangular picture, in world axes. [F, 3, N]"""
        width_px = self.intrinsics.width_px
        columns = torch.arange(width_px, device=self.device) + (0.5 + offset_px[0])
        lines = torch.arange(rows.start, rows.stop, device=self.device) + (0.5 + offset_px[1])
        azimuth = (2 * columns / width_px - 1) * math.pi
        elevation = (0.5 - 2 * lines[:, None] / width_px) * math.pi
        across, up = torch.cos(elevation), torch.sin(elevation).expand(-1, width_px)
        rays = torch.stack([across * torch.sin(azimuth), -up, across * torch.cos(azimuth)])
        return T[:, :3, :3] @ rays.flatten(1)


def render_panorama(
    scene: Scene,
    height_px: int,
    *,
    T_world_camera: ArrayLike | None = None,
    time_s: float = 0.0,
    supersample: int = 1,
) -> PanoramaView:
    """Look at the scene in all directions at once.

    Args:
        scene: what is there.
        height_px: rows of the picture; it has twice as many columns.
        T_world_camera: where from; None: the world's origin, level. [4, 4]
        time_s: when.
        supersample: as for `raycast.render`.
    """
    if height_px < MIN_HEIGHT_PX:
        raise InputError(f"height_px={height_px}: want at least {MIN_HEIGHT_PX}")
    pose = check_pose(np.eye(4) if T_world_camera is None else T_world_camera, "T_world_camera")
    pixels_per_rad = height_px / math.pi
    camera = Intrinsics(  # stands for the picture: what counts is its width, and how fine its pixels are
        fx_px=pixels_per_rad, fy_px=pixels_per_rad, cx_px=height_px - 0.5, cy_px=0.5 * (height_px - 1),
        width_px=2 * height_px, height_px=height_px,
    )  # fmt: skip
    tracer = _AllRoundTracer(scene, camera, pose[None], np.array([time_s]), supersample, torch.device("cpu"))
    rows_step = max(1, RAYS_PER_CHUNK_CPU // camera.width_px)
    starts = range(0, height_px, rows_step)
    chunks = [tracer.views(slice(0, 1), slice(top, min(top + rows_step, height_px))) for top in starts]
    return PanoramaView(
        rgb_u8=torch.cat([chunk.rgb_u8[0] for chunk in chunks]).numpy(),
        range_m=torch.cat([chunk.depth_m[0] for chunk in chunks]).numpy(),
    )
