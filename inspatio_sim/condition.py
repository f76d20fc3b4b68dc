"""Condition: what geometry alone knows of the views to come.

The reference frame of the moment is warped into every target view; where it says nothing, the map of
what was seen before does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.camera import Array, Intrinsics, inverse
from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.kernels import kernel
from inspatio_sim.reference import Reference

if TYPE_CHECKING:
    from inspatio_sim.mapping.world_map import WorldMap

GENERATED, FROM_MAP, FROM_REFERENCE = 0, 1, 2
"""Per-pixel provenance: nobody has seen it; seen from the map; seen in the reference."""

SURFACE_TOLERANCE = 0.05  # a point this close (relative) to the reference's surface lies on it


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Renders of F target views. Colour is black and depth 0 where `known` is GENERATED."""

    render_u8: NDArray[np.uint8]  # [F, H, W, 3]
    depth_m: NDArray[np.float32]  # z-depth in the target view. [F, H, W]
    known: NDArray[np.uint8]  # GENERATED, FROM_MAP or FROM_REFERENCE. [F, H, W]
    T_world_camera: Array  # target poses. [F, 4, 4]
    reference_frame_idx: NDArray[np.int64]  # the reference frame of each moment. [F]


def build_condition(
    reference: Reference,
    world_map: WorldMap,
    T_world_camera: Array,
    reference_frame_idx: NDArray[np.int64],
) -> Condition:
    """Render reference and map into F target views.

    A map point that the reference frame sees through is out of date (something moved away) and is not
    shown; one that the reference cannot see (out of view or hidden) may stand in front of what it shows.

    Args:
        reference: the clip with geometry.
        world_map: everything seen so far.
        T_world_camera: target poses. [F, 4, 4]
        reference_frame_idx: which reference frame belongs to each target. [F]
    """
    views = [
        _render_view(reference, world_map, pose, int(frame_idx))
        for pose, frame_idx in zip(T_world_camera, reference_frame_idx, strict=True)
    ]
    renders, depths, knowns = zip(*views, strict=True)
    return Condition(
        render_u8=np.stack(renders),
        depth_m=np.stack(depths),
        known=np.stack(knowns),
        T_world_camera=T_world_camera,
        reference_frame_idx=reference_frame_idx,
    )


def _render_view(
    reference: Reference, world_map: WorldMap, T_world_camera: Array, frame_idx: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    intrinsics = reference.intrinsics
    T_reference_camera = inverse(reference.T_world_camera[frame_idx]) @ T_world_camera
    warped = forward_warp(
        reference.frames_u8[frame_idx],
        reference.depth_m[frame_idx],
        intrinsics,
        intrinsics,
        inverse(T_reference_camera),
    )
    image_u8, depth_m = warped.rgb_u8, warped.depth_m
    known = np.where(warped.is_known, np.uint8(FROM_REFERENCE), np.uint8(GENERATED))
    if known.all():  # nothing for the map to add, unless it hides something: see below
        if np.allclose(T_reference_camera, np.eye(4), atol=1e-9):
            return image_u8, depth_m, known
    from_map = world_map.render(intrinsics, T_world_camera)
    # The nearest depth of every 3x3 neighbourhood; 0 (unknown) contradicts nobody.
    nearest_reference_m = cv2.erode(reference.depth_m[frame_idx], np.ones((3, 3), np.uint8))
    _overlay_map(
        from_map.rgb_u8,
        from_map.depth_m,
        nearest_reference_m,
        _camera_numbers(intrinsics),
        T_reference_camera,
        image_u8,
        depth_m,
        known,
    )
    return image_u8, depth_m, known


def _camera_numbers(intrinsics: Intrinsics) -> Array:
    return np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])


@kernel
def _overlay_map(map_rgb_u8, map_depth_m, nearest_reference_m, camera, T_reference_camera, image_u8, depth_m, known):
    """Put the map's pixels where the reference is silent or hidden; writes image, depth and known."""
    height_px, width_px = map_depth_m.shape
    fx, fy, cx, cy = camera
    T = T_reference_camera
    for row in range(height_px):
        for column in range(width_px):
            z = map_depth_m[row, column]
            if z == 0:
                continue
            is_silent = known[row, column] == 0
            if not is_silent and z >= depth_m[row, column] * (1 - SURFACE_TOLERANCE):
                continue
            x, y = (column - cx) / fx * z, (row - cy) / fy * z
            z_reference = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
            is_unseen = True  # by the reference frame
            if z_reference > 1e-3:
                u = np.rint(fx * (T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / z_reference + cx)
                v = np.rint(fy * (T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]) / z_reference + cy)
                if u >= 0 and u < width_px and v >= 0 and v < height_px:
                    surface = nearest_reference_m[int(v), int(u)]
                    if surface > 0 and z_reference < surface * (1 - SURFACE_TOLERANCE):
                        continue  # the reference sees through this point: out of date
                    is_unseen = surface == 0 or z_reference > surface * (1 + SURFACE_TOLERANCE)
            if is_silent or is_unseen:
                image_u8[row, column] = map_rgb_u8[row, column]
                depth_m[row, column] = z
                known[row, column] = 1
