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

from inspatio_sim.camera import Array, inverse
from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.kernels import kernel
from inspatio_sim.reference import Reference

if TYPE_CHECKING:
    from inspatio_sim.mapping.world_map import WorldMap

GENERATED, FROM_MAP, FROM_REFERENCE = 0, 1, 2
"""Per-pixel provenance: made up, now or earlier; seen before, from the map; seen in the reference now."""

SURFACE_TOLERANCE = 0.05  # a point this close (relative) to the reference's surface lies on it


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Renders of F target views. Colour is black and depth 0 where nothing is rendered.

    What a generator made up once is in the map and is rendered again, so that a place stays as it is;
    `known` still calls it GENERATED.
    """

    render_u8: NDArray[np.uint8]  # [F, H, W, 3]
    depth_m: NDArray[np.float32]  # z-depth in the target view. [F, H, W]
    is_rendered: NDArray[np.bool_]  # the generator has to complete the rest. [F, H, W]
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
    shown; one that the reference cannot see (out of view or hidden) may stand in front of what it shows,
    unless it was made up.

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
    renders, depths, is_rendered, knowns = zip(*views, strict=True)
    return Condition(
        render_u8=np.stack(renders),
        depth_m=np.stack(depths),
        is_rendered=np.stack(is_rendered),
        known=np.stack(knowns),
        T_world_camera=T_world_camera,
        reference_frame_idx=reference_frame_idx,
    )


def _render_view(
    reference: Reference, world_map: WorldMap, T_world_camera: Array, frame_idx: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]:
    intrinsics = reference.intrinsics
    T_reference_camera = inverse(reference.T_world_camera[frame_idx]) @ T_world_camera
    reference_depth_m = reference.depth_m[frame_idx]
    warped = forward_warp(
        reference.frames_u8[frame_idx], reference_depth_m, intrinsics, intrinsics, inverse(T_reference_camera)
    )
    image_u8, depth_m, is_rendered = warped.rgb_u8, warped.depth_m, warped.is_known
    known = np.where(is_rendered, np.uint8(FROM_REFERENCE), np.uint8(GENERATED))
    if is_rendered.all() and np.allclose(T_reference_camera, np.eye(4), atol=1e-9):
        return image_u8, depth_m, is_rendered, known  # the reference itself
    from_map = world_map.render(intrinsics, T_world_camera)
    # The nearest depth of every 3x3 neighbourhood; 0 (unknown) contradicts nobody.
    nearest_reference_m = cv2.erode(reference_depth_m, np.ones((3, 3), np.uint8))
    camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])
    _overlay_map(
        from_map.rgb_u8,
        from_map.depth_m,
        from_map.index,
        world_map.is_generated,
        nearest_reference_m,
        camera,
        T_reference_camera,
        image_u8,
        depth_m,
        is_rendered,
        known,
    )
    return image_u8, depth_m, is_rendered, known


@kernel
def _overlay_map(
    map_rgb_u8, map_depth_m, map_index, is_generated, nearest_reference_m, camera, T_reference_camera,
    image_u8, depth_m, is_rendered, known,
):  # fmt: skip
    """Put the map's pixels where the reference is silent or hidden; writes the last four arrays."""
    height_px, width_px = map_depth_m.shape
    fx, fy, cx, cy = camera
    T = T_reference_camera
    for row in range(height_px):
        for column in range(width_px):
            z = map_depth_m[row, column]
            if z == 0:
                continue
            made_up = is_generated[map_index[row, column]]
            is_silent = not is_rendered[row, column]
            if not is_silent and (made_up or z >= depth_m[row, column] * (1 - SURFACE_TOLERANCE)):
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
                is_rendered[row, column] = True
                known[row, column] = GENERATED if made_up else FROM_MAP
