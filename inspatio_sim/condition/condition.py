"""Condition: what geometry alone knows of the next views.

The current reference frame is warped into every target view; where it shows nothing, the map fills in what was
seen before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition.views_seen import views_seen
from inspatio_sim.geometry.keys import PointsInView, depth_and_rank, splat_keys
from inspatio_sim.geometry.warp import forward_warp_into
from inspatio_sim.kernels import kernel, run_chunks
from inspatio_sim.motion.camera import Array, inverse
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import Reference

if TYPE_CHECKING:
    from inspatio_sim.mapping.world_map import WorldMap

NEIGHBOURS = np.ones((3, 3), np.uint8)
SURFACE_TOLERANCE = 0.05  # a point this close (relative) to the reference's surface lies on it


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Renders of F target views. Colour is black and depth 0 where nothing is rendered.

    Pixels that a generator made up earlier are in the map and are rendered again, so that a place stays the same;
    `known` still marks them Known.MADE_UP.
    """

    render_u8: NDArray[np.uint8]  # [F, H, W, 3]
    depth_m: NDArray[np.float32]  # z-depth in the target view. [F, H, W]
    is_rendered: NDArray[np.bool_]  # the generator has to complete the rest. [F, H, W]
    known: NDArray[np.uint8]  # Known.MADE_UP, Known.MAP or Known.CLIP. [F, H, W]
    T_world_camera: Array  # target poses. [F, 4, 4]
    reference_frame_idx: NDArray[np.int64]  # the reference frame of each moment. [F]


@dataclass(frozen=True, kw_only=True)
class Viewpoints:
    """What to render, and from where."""

    reference: Reference
    map: WorldMap  # everything seen so far
    T_world_camera: Array  # target poses. [F, 4, 4]
    reference_frame_idx: NDArray[np.int64]  # which reference frame belongs to each. [F]


def build_condition(
    reference: Reference,
    world_map: WorldMap,
    T_world_camera: Array,
    reference_frame_idx: NDArray[np.int64],
) -> Condition:
    """Render reference and map into F target views (see `build_conditions`)."""
    (condition,) = build_conditions(
        [
            Viewpoints(
                reference=reference,
                map=world_map,
                T_world_camera=T_world_camera,
                reference_frame_idx=reference_frame_idx,
            )
        ]
    )
    return condition


def build_conditions(batch: Sequence[Viewpoints]) -> list[Condition]:
    """Render references and maps into target views, all views of the batch in parallel.

    A map point that the reference frame sees through is out of date (something moved away) and is not
    shown. A point that the reference cannot see (out of view or hidden) may occlude what the reference shows,
    unless it was made up. Each result is independent of the rest of the batch.
    """
    conditions = []
    views = []
    num_views = sum(len(viewpoints.T_world_camera) for viewpoints in batch)
    points_in_view = run_chunks(
        lambda each: each.map.points_in_view(each.reference.intrinsics, each.T_world_camera), [(v,) for v in batch]
    )
    for viewpoints, points in zip(batch, points_in_view, strict=True):
        reference, num_frames = viewpoints.reference, len(viewpoints.T_world_camera)
        shape = (num_frames, *reference.size_px)
        condition = Condition(
            render_u8=np.empty((*shape, 3), np.uint8),
            depth_m=np.empty(shape, np.float32),
            is_rendered=np.empty(shape, np.bool_),
            known=np.empty(shape, np.uint8),
            T_world_camera=viewpoints.T_world_camera,
            reference_frame_idx=viewpoints.reference_frame_idx,
        )
        conditions.append(condition)
        views += [(reference, points, condition, i, num_views == 1) for i in range(num_frames)]
    run_chunks(_render_view, views)
    return conditions


def _render_view(
    reference: Reference, points: PointsInView, condition: Condition, i: int, has_all_threads: bool
) -> None:
    """Fill in view `i` of a condition.

    Args:
        reference: the clip with geometry.
        points: the points of the map.
        condition: its arrays are written to.
        i: index of the view.
        has_all_threads: nothing else is being rendered, so the warp may use several threads.
    """
    intrinsics, frame_idx = reference.intrinsics, int(condition.reference_frame_idx[i])
    reference_depth_m = reference.depth_m[frame_idx]
    T_reference_camera = inverse(reference.T_world_camera[frame_idx]) @ condition.T_world_camera[i]
    image_u8, depth_m = condition.render_u8[i], condition.depth_m[i]
    is_rendered, known = condition.is_rendered[i], condition.known[i]
    forward_warp_into(
        reference.frames_u8[frame_idx],
        reference_depth_m,
        intrinsics,
        intrinsics,
        inverse(T_reference_camera),
        (image_u8, depth_m, is_rendered),
        has_all_threads=has_all_threads,
    )
    if reference.is_static:
        rendered = image_u8, depth_m, is_rendered
        _add_other_views(reference, frame_idx, condition.T_world_camera[i], rendered, has_all_threads)
    np.multiply(is_rendered, np.uint8(Known.CLIP), out=known)  # and Known.MADE_UP elsewhere
    if len(points.row) == 0:
        return
    if is_rendered.all() and np.allclose(T_reference_camera, np.eye(4), atol=1e-9):
        return  # the reference itself
    # A point counts if it is nearer than this; where the reference shows nothing, at any depth.
    limit_m = np.where(is_rendered, depth_m * np.float32(1 - SURFACE_TOLERANCE + 1e-6), np.float32(np.inf))
    keys = splat_keys(points, intrinsics, condition.T_world_camera[i], limit_m, has_all_threads=has_all_threads)
    # The nearest depth of every 3x3 neighbourhood; 0 (unknown) contradicts nothing.
    nearest_reference_m = cv2.erode(reference_depth_m, NEIGHBOURS)
    camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])
    _overlay_map(
        *depth_and_rank(keys),
        points.rgb_u8,
        points.is_generated,
        nearest_reference_m,
        camera,
        T_reference_camera,
        image_u8,
        depth_m,
        is_rendered,
        known,
    )


def _add_other_views(
    reference: Reference,
    frame_idx: int,
    T_world_camera: Array,
    rendered: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]],
    has_all_threads: bool,
) -> None:
    """Fill pixels that the reference frame lacks from other frames of the same moment; writes `rendered`."""
    image_u8, depth_m, is_rendered = rendered
    for other_idx in views_seen(reference, T_world_camera, reference.typical_depth_m):
        if other_idx == frame_idx:
            continue
        other_u8, other_m, is_seen = np.empty_like(image_u8), np.empty_like(depth_m), np.empty_like(is_rendered)
        forward_warp_into(
            reference.frames_u8[other_idx],
            reference.depth_m[other_idx],
            reference.intrinsics,
            reference.intrinsics,
            inverse(T_world_camera) @ reference.T_world_camera[other_idx],
            (other_u8, other_m, is_seen),
            has_all_threads=has_all_threads,
        )
        is_news = is_seen & ~is_rendered
        image_u8[is_news], depth_m[is_news], is_rendered[is_news] = other_u8[is_news], other_m[is_news], True


@kernel
def _overlay_map(
    map_depth_m, map_rank, map_rgb_u8, is_generated, nearest_reference_m, camera, T_reference_camera,
    image_u8, depth_m, is_rendered, known,
):  # fmt: skip
    """Put the map's pixels where the reference shows nothing or is occluded; writes the last four arrays."""
    height_px, width_px = depth_m.shape
    fx, fy, cx, cy = camera
    T = T_reference_camera
    for row in range(height_px):
        for column in range(width_px):
            z = map_depth_m[row, column]
            if np.isnan(z):
                continue
            is_silent = not is_rendered[row, column]
            if not is_silent and z >= depth_m[row, column] * (1 - SURFACE_TOLERANCE):
                continue
            point = np.int64(0xFFFFFFFF) - np.int64(map_rank[row, column])
            made_up = is_generated[point]
            if made_up and not is_silent:
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
                image_u8[row, column, 0] = map_rgb_u8[point, 0]
                image_u8[row, column, 1] = map_rgb_u8[point, 1]
                image_u8[row, column, 2] = map_rgb_u8[point, 2]
                depth_m[row, column] = z
                is_rendered[row, column] = True
                known[row, column] = Known.MADE_UP if made_up else Known.MAP
