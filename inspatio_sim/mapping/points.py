"""Pixels with depth -> merged points and occupied cells.

Two phases: `lift_pixels` turns rows of pixels into samples (in parallel; neighbours of one row that fall
into the same point cell become one sample), `fuse_samples` merges the samples into the map in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.kernels import kernel
from inspatio_sim.mapping.storage import (
    FILMED,
    FRAME,
    MADE_UP,
    UNSEEN,
    find_or_add_block,
    new_brick,
    new_point,
    pack_key,
)
from inspatio_sim.provenance import Known


class Samples(NamedTuple):
    """Pixels of one frame, lifted. One row per run of pixels in the same point cell."""

    block_key: NDArray[np.int64]  # [M]
    cell_slot: NDArray[np.int32]  # cell within the block * 512 + point cell within the cell. [M]
    position_m: NDArray[np.float32]  # mean of the run. [M, 3]
    rgb: NDArray[np.float32]  # mean of the run. [M, 3]
    num_pixels: NDArray[np.int32]  # [M]
    size_m: NDArray[np.float32]  # distance to the next pixel's point. [M]
    source: NDArray[np.uint8]  # [M]


def empty_samples(size: int) -> Samples:
    return Samples(
        block_key=np.empty(size, dtype=np.int64),
        cell_slot=np.empty(size, dtype=np.int32),
        position_m=np.empty((size, 3), dtype=np.float32),
        rgb=np.empty((size, 3), dtype=np.float32),
        num_pixels=np.empty(size, dtype=np.int32),
        size_m=np.empty(size, dtype=np.float32),
        source=np.empty(size, dtype=np.uint8),
    )


@kernel
def lift_pixels(
    rgb_u8, depth_m, known, camera, T_world_camera, near_m, max_range_m, voxel_m, points_per_edge,
    first_row, stop_row, out,
):  # fmt: skip
    """Fill `out` from the row `first_row * W` on with the samples of these image rows.

    Args:
        rgb_u8: [H, W, 3]
        depth_m: z-depth, 0 = unknown. [H, W]
        known: Known.MADE_UP, Known.MAP (skipped) or Known.CLIP. [H, W]
        camera: fx, fy, cx, cy in pixels. [4]
        T_world_camera: [4, 4]
        near_m: pixels nearer than this are skipped.
        max_range_m: pixels beyond this are skipped.
        voxel_m: edge of a point cell.
        points_per_edge: point cells along the edge of an occupancy cell; below 8 not every slot is used.
        first_row: first row of the image.
        stop_row: row of the image to stop before.
        out: Samples with room for H * W.

    Returns:
        Number of samples.
    """
    width_px = depth_m.shape[1]
    T = T_world_camera
    step = np.int64(8 // points_per_edge)
    start = row = first_row * width_px
    for v in range(first_row, stop_row):
        y_ray = (v - camera[3]) / camera[1]
        last_x = last_y = last_z = np.int64(0)
        last_source = np.uint8(UNSEEN)
        last_depth_m = 0.0
        n = 0
        sum_x = sum_y = sum_z = sum_r = sum_g = sum_b = 0.0
        for u in range(width_px + 1):  # the extra step closes the last run
            z = np.float64(depth_m[v, u]) if u < width_px else 0.0
            is_used = z >= near_m and z <= max_range_m and known[v, u] != Known.MAP
            wx = wy = wz = 0.0
            ix = iy = iz = np.int64(0)
            source = np.uint8(UNSEEN)
            if is_used:
                x_c, y_c = (u - camera[2]) / camera[0] * z, y_ray * z
                wx = T[0, 0] * x_c + T[0, 1] * y_c + T[0, 2] * z + T[0, 3]
                wy = T[1, 0] * x_c + T[1, 1] * y_c + T[1, 2] * z + T[1, 3]
                wz = T[2, 0] * x_c + T[2, 1] * y_c + T[2, 2] * z + T[2, 3]
                ix = np.int64(np.floor(wx / voxel_m)) * step
                iy = np.int64(np.floor(wy / voxel_m)) * step
                iz = np.int64(np.floor(wz / voxel_m)) * step
                source = np.uint8(FILMED) if known[v, u] == Known.CLIP else np.uint8(MADE_UP)
            if n > 0 and not (is_used and ix == last_x and iy == last_y and iz == last_z and source == last_source):
                out.block_key[row] = pack_key(last_x >> 6, last_y >> 6, last_z >> 6)
                cell = (((last_x >> 3) & 7) << 6) | (((last_y >> 3) & 7) << 3) | ((last_z >> 3) & 7)
                slot = ((last_x & 7) << 6) | ((last_y & 7) << 3) | (last_z & 7)
                out.cell_slot[row] = (cell << 9) | slot
                out.position_m[row, 0], out.position_m[row, 1], out.position_m[row, 2] = sum_x / n, sum_y / n, sum_z / n
                out.rgb[row, 0], out.rgb[row, 1], out.rgb[row, 2] = sum_r / n, sum_g / n, sum_b / n
                out.num_pixels[row] = n
                out.size_m[row] = last_depth_m / camera[0]
                out.source[row] = last_source
                row += 1
                n = 0
                sum_x = sum_y = sum_z = sum_r = sum_g = sum_b = 0.0
            if is_used:
                last_x, last_y, last_z, last_source, last_depth_m = ix, iy, iz, source, z
                n += 1
                sum_x += wx
                sum_y += wy
                sum_z += wz
                sum_r += rgb_u8[v, u, 0]
                sum_g += rgb_u8[v, u, 1]
                sum_b += rgb_u8[v, u, 2]
    return row - start


@kernel
def fuse_samples(storage, samples, start, stop, time_s, hit_log_odds, max_log_odds, generated_weight, max_confidence):
    """Merge the samples [start, stop) in order.

    The reference outranks the generator: its first sample of a cell or point replaces what was generated,
    and generated samples change neither its points nor the cells it has seen.

    Returns:
        The index it stopped at: `stop`, or earlier if an array is full (grow it and continue from there).
    """
    # Arrays by name: passing the whole tuple in the loop would cost more than the work itself.
    log_odds, cell_source, hit_frame, brick_of = storage.log_odds, storage.cell_source, storage.hit_frame, storage.brick
    brick_point, brick_count, point_source = storage.brick_point, storage.brick_count, storage.point_source
    position_m, rgb_mean, rgb_u8 = storage.position_m, storage.rgb_mean, storage.rgb_u8
    confidence, size_m, last_seen_s = storage.confidence, storage.size_m, storage.last_seen_s
    sample_key, sample_cell_slot, sample_position_m, sample_rgb, sample_pixels, sample_size_m, sample_source = samples
    frame = storage.counts[FRAME]
    last_key, block = np.int64(-1), np.int64(-1)
    for i in range(start, stop):
        if sample_key[i] != last_key:
            last_key = sample_key[i]
            block = find_or_add_block(storage, last_key)
            if block < 0:
                return i
        cell, slot = sample_cell_slot[i] >> 9, sample_cell_slot[i] & 511
        source = sample_source[i]
        weight = np.float32(1.0) if source == FILMED else np.float32(generated_weight)

        if source < cell_source[block, cell] and log_odds[block, cell] < 0:
            continue  # generated, where the reference has seen free space
        brick = np.int64(brick_of[block, cell])
        if brick < 0:
            brick = new_brick(storage)
            if brick < 0:
                return i
            brick_of[block, cell] = brick
        point = np.int64(brick_point[brick, slot])
        is_new = point < 0
        if is_new:
            point = new_point(storage)
            if point < 0:
                return i
            brick_point[brick, slot] = point
            brick_count[brick] += 1

        if source > cell_source[block, cell]:
            cell_source[block, cell] = source
            log_odds[block, cell] = 0
            hit_frame[block, cell] = -1
        if source == cell_source[block, cell] and hit_frame[block, cell] != frame:
            odds = log_odds[block, cell] + np.float32(hit_log_odds) * weight
            log_odds[block, cell] = min(odds, np.float32(max_log_odds) * weight)
            hit_frame[block, cell] = frame

        if not is_new and source < point_source[point]:
            continue
        if is_new or source > point_source[point]:
            point_source[point] = source
            confidence[point] = 0
            size_m[point] = sample_size_m[i]
        size_m[point] = min(size_m[point], sample_size_m[i])
        added = np.float32(sample_pixels[i]) * weight
        total = confidence[point] + added
        share = added / total
        for axis in range(3):
            if share == 1:
                position_m[point, axis] = sample_position_m[i, axis]
                rgb_mean[point, axis] = sample_rgb[i, axis]
            else:
                position_m[point, axis] += (sample_position_m[i, axis] - position_m[point, axis]) * share
                rgb_mean[point, axis] += (sample_rgb[i, axis] - rgb_mean[point, axis]) * share
            rgb_u8[point, axis] = np.uint8(rgb_mean[point, axis] + np.float32(0.5))
        confidence[point] = min(total, np.float32(max_confidence))
        last_seen_s[point] = time_s
    return stop
