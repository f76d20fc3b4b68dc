"""Free space: cells and points that a frame looks through lose evidence and are finally removed.

A cell is seen as free when all of it is nearer than every measured pixel it covers in the image. So a
floor or wall seen at a grazing angle is never removed: the pixels below its cells are nearer, not farther.
Minimum and maximum pyramids of the depth test cells and whole blocks with a few reads.
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
    NUM_FREE_BRICKS,
    NUM_FREE_POINTS,
    UNSEEN,
    find_or_add_block,
    pack_key,
    unpack_key,
)
from inspatio_sim.provenance import Known

MIXED, FREE = 1, 2  # a block for a frame: its cells must be tested one by one, or all are looked through

BLIND_CELLS = 2  # cells around the camera's cell that are too near to be seen
CHECK_EVERY = 4  # a brick's points are compared with every fourth frame
LOOKED_THROUGH_FACTOR = 1 / 16  # factor on a point's confidence, each time


class Evidence(NamedTuple):
    """One measured frame, prepared for tests of what is in front of it.

    Level l of a pyramid summarises tiles of 2^l x 2^l pixels; all levels are stored in one array.
    """

    nearest_m: NDArray[np.float32]  # min pyramid, inf = nothing measured
    farthest_m: NDArray[np.float32]  # max pyramid, 0 = nothing measured
    level_start: NDArray[np.int64]  # [L]
    level_size: NDArray[np.int64]  # height and width in tiles. [L, 2]
    known: NDArray[np.uint8]  # [H, W]
    camera: NDArray[np.float64]  # fx, fy, cx, cy. [4]
    T_camera_world: NDArray[np.float64]  # [4, 4]
    near_m: float
    max_range_m: float
    depth_tolerance: float


def evidence_of(depth_m, known, camera, T_camera_world, near_m, max_range_m, depth_tolerance) -> Evidence:
    """Build the pyramids. Pixels rendered from the map itself do not count as evidence."""
    sizes = [depth_m.shape]
    while max(sizes[-1]) > 1:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    level_size = np.array(sizes, dtype=np.int64)
    level_start = np.concatenate([[0], np.cumsum(level_size.prod(axis=1))])
    evidence = Evidence(
        nearest_m=np.empty(level_start[-1], dtype=np.float32),
        farthest_m=np.empty(level_start[-1], dtype=np.float32),
        level_start=level_start[:-1],
        level_size=level_size,
        known=known,
        camera=camera,
        T_camera_world=T_camera_world,
        near_m=near_m,
        max_range_m=max_range_m,
        depth_tolerance=depth_tolerance,
    )
    _build_pyramids(depth_m, evidence)
    return evidence


@kernel
def _build_pyramids(depth_m, evidence):
    height_px, width_px = depth_m.shape
    nearest_m, farthest_m = evidence.nearest_m, evidence.farthest_m
    for v in range(height_px):
        for u in range(width_px):
            is_measured = depth_m[v, u] > 0 and evidence.known[v, u] != Known.MAP
            nearest_m[v * width_px + u] = depth_m[v, u] if is_measured else np.float32(np.inf)
            farthest_m[v * width_px + u] = depth_m[v, u] if is_measured else np.float32(0)
    for level in range(1, len(evidence.level_start)):
        below, here = evidence.level_start[level - 1], evidence.level_start[level]
        rows_below, columns_below = evidence.level_size[level - 1]
        rows, columns = evidence.level_size[level]
        for v in range(rows):
            for u in range(columns):
                low, high = np.float32(np.inf), np.float32(0)
                for y in range(2 * v, min(2 * v + 2, rows_below)):
                    for x in range(2 * u, min(2 * u + 2, columns_below)):
                        low = min(low, nearest_m[below + y * columns_below + x])
                        high = max(high, farthest_m[below + y * columns_below + x])
                nearest_m[here + v * columns + u] = low
                farthest_m[here + v * columns + u] = high


@kernel
def _depth_range(nearest_m, farthest_m, level_start, level_size, left, top, right, bottom):
    """Nearest and farthest measured depth in a window of the image, pixels that it cuts included.

    Read on the level where the window is at most 5 tiles wide, so up to a quarter wider than asked for.
    """
    left_px, right_px = max(np.int64(np.floor(left)), 0), min(np.int64(np.ceil(right)), level_size[0, 1] - 1)
    top_px, bottom_px = max(np.int64(np.floor(top)), 0), min(np.int64(np.ceil(bottom)), level_size[0, 0] - 1)
    extent_px = max(right_px - left_px, bottom_px - top_px)
    level = 0
    while (extent_px >> (level + 2)) > 0 and level + 1 < len(level_start):
        level += 1
    start, columns = level_start[level], level_size[level, 1]
    low, high = np.float32(np.inf), np.float32(0)
    for y in range(top_px >> level, (bottom_px >> level) + 1):
        for x in range(left_px >> level, (right_px >> level) + 1):
            low = min(low, nearest_m[start + y * columns + x])
            high = max(high, farthest_m[start + y * columns + x])
    return low, high


@kernel
def _image_span(low_m, high_m, near_z, far_z, focal_px, centre_px):
    """Pixels that the interval [low, high] x [near_z, far_z] covers along one image axis."""
    first = focal_px * low_m / (near_z if low_m < 0 else far_z) + centre_px
    last = focal_px * high_m / (far_z if high_m < 0 else near_z) + centre_px
    return first, last


@kernel
def blocks_in_view(evidence, first_block, stop_block, block_m):
    """Blocks of a box of block coordinates that this frame may look into.

    Returns:
        Packed keys [M], and MIXED (its cells must be tested one by one) or FREE for each [M].
    """
    nearest_m, farthest_m, level_start, level_size, known, _, _, _, _, _ = evidence
    height_px, width_px = evidence.known.shape
    fx, fy, cx, cy = evidence.camera
    R, t = evidence.T_camera_world[:3, :3], evidence.T_camera_world[:3, 3]
    half_x = 0.5 * block_m * (abs(R[0, 0]) + abs(R[0, 1]) + abs(R[0, 2]))
    half_y = 0.5 * block_m * (abs(R[1, 0]) + abs(R[1, 1]) + abs(R[1, 2]))
    half_z = 0.5 * block_m * (abs(R[2, 0]) + abs(R[2, 1]) + abs(R[2, 2]))
    size = stop_block - first_block
    keys = np.empty(size[0] * size[1] * size[2], dtype=np.int64)
    views = np.empty(len(keys), dtype=np.uint8)
    count = 0
    for bx in range(first_block[0], stop_block[0]):
        for by in range(first_block[1], stop_block[1]):
            for bz in range(first_block[2], stop_block[2]):
                wx, wy, wz = (bx + 0.5) * block_m, (by + 0.5) * block_m, (bz + 0.5) * block_m
                x = R[0, 0] * wx + R[0, 1] * wy + R[0, 2] * wz + t[0]
                y = R[1, 0] * wx + R[1, 1] * wy + R[1, 2] * wz + t[1]
                z = R[2, 0] * wx + R[2, 1] * wy + R[2, 2] * wz + t[2]
                near_z, far_z = z - half_z, z + half_z
                if far_z < evidence.near_m or near_z > evidence.max_range_m:
                    continue
                view = MIXED
                if near_z > evidence.near_m:
                    left, right = _image_span(x - half_x, x + half_x, near_z, far_z, fx, cx)
                    top, bottom = _image_span(y - half_y, y + half_y, near_z, far_z, fy, cy)
                    if right < 0 or bottom < 0 or left > width_px - 1 or top > height_px - 1:
                        continue
                    low, high = _depth_range(nearest_m, farthest_m, level_start, level_size, left, top, right, bottom)
                    if high < near_z:
                        continue
                    if low > far_z * (1 + evidence.depth_tolerance) and far_z < evidence.max_range_m:
                        view = FREE
                keys[count] = pack_key(bx, by, bz)
                views[count] = view
                count += 1
    return keys[:count], views[:count]


@kernel
def add_blocks(storage, keys, start, rows):
    """Find or make the blocks from `start` on and write their rows; returns where room ran out, or the end."""
    for i in range(start, len(keys)):
        rows[i] = find_or_add_block(storage, keys[i])
        if rows[i] < 0:
            return i
    return len(keys)


@kernel
def carve_blocks(storage, evidence, rows, views, start, stop, cell_m, miss_log_odds, min_log_odds, generated_weight,
                 min_confidence):  # fmt: skip
    """Lower the evidence of cells and points in blocks [start, stop) that the frame looks through.

    Different blocks share nothing, so they can run in parallel.

    Returns:
        Rows of the deleted points and bricks, in order.
    """
    nearest_m, farthest_m, level_start, level_size, known, _, _, _, _, _ = evidence
    height_px, width_px = evidence.known.shape
    fx, fy, cx, cy = evidence.camera
    R, t = evidence.T_camera_world[:3, :3], evidence.T_camera_world[:3, 3]
    half_x = 0.5 * cell_m * (abs(R[0, 0]) + abs(R[0, 1]) + abs(R[0, 2]))
    half_y = 0.5 * cell_m * (abs(R[1, 0]) + abs(R[1, 1]) + abs(R[1, 2]))
    half_z = 0.5 * cell_m * (abs(R[2, 0]) + abs(R[2, 1]) + abs(R[2, 2]))
    frame = storage.counts[FRAME]
    log_odds, cell_source, hit_frame, brick_of = storage.log_odds, storage.cell_source, storage.hit_frame, storage.brick
    brick_point, brick_count, position_m = storage.brick_point, storage.brick_count, storage.position_m
    confidence, point_source, block_key = storage.confidence, storage.point_source, storage.block_key
    near_m, max_range_m, tolerance = evidence.near_m, evidence.max_range_m, evidence.depth_tolerance
    margin_m = cell_m / 4
    lost_points = np.empty(64, dtype=np.int32)
    lost_bricks = np.empty(64, dtype=np.int32)
    num_lost_points = num_lost_bricks = 0
    for i in range(start, stop):
        block = rows[i]
        bx, by, bz = unpack_key(block_key[block])
        for cell in range(512):
            brick = np.int64(brick_of[block, cell])
            if brick < 0 and cell_source[block, cell] == FILMED and log_odds[block, cell] <= min_log_odds:
                continue  # certainly free already, like most of a known room
            wx = (bx * 8 + (cell >> 6) + 0.5) * cell_m
            wy = (by * 8 + ((cell >> 3) & 7) + 0.5) * cell_m
            wz = (bz * 8 + (cell & 7) + 0.5) * cell_m
            z = R[2, 0] * wx + R[2, 1] * wy + R[2, 2] * wz + t[2]
            near_z, far_z = z - half_z, z + half_z
            if near_z < near_m or far_z > max_range_m:
                continue
            x = R[0, 0] * wx + R[0, 1] * wy + R[0, 2] * wz + t[0]
            y = R[1, 0] * wx + R[1, 1] * wy + R[1, 2] * wz + t[1]
            column, row = np.int64(np.rint(fx * x / z + cx)), np.int64(np.rint(fy * y / z + cy))
            source, limit_m = UNSEEN, 0.0
            is_free = column >= 0 and row >= 0 and column < width_px and row < height_px
            if is_free:
                limit_m = max(far_z, z * (1 + tolerance))
                measured_m = nearest_m[row * width_px + column]
                is_free = measured_m > limit_m and measured_m < np.inf and hit_frame[block, cell] != frame
            if is_free and views[i] != FREE:
                left, right = _image_span(x - half_x, x + half_x, near_z, far_z, fx, cx)
                top, bottom = _image_span(y - half_y, y + half_y, near_z, far_z, fy, cy)
                low, _ = _depth_range(nearest_m, farthest_m, level_start, level_size, left, top, right, bottom)
                is_free = low > limit_m
            if is_free:
                source = FILMED if known[row, column] == Known.CLIP else MADE_UP
                is_free = source >= cell_source[block, cell]
            if is_free:
                if source > cell_source[block, cell]:
                    cell_source[block, cell] = source
                    log_odds[block, cell] = 0
                weight = np.float32(1.0) if source == FILMED else np.float32(generated_weight)
                odds = log_odds[block, cell] - np.float32(miss_log_odds) * weight
                log_odds[block, cell] = max(odds, np.float32(min_log_odds) * weight)
            if brick < 0:
                continue
            is_forgotten = is_free and log_odds[block, cell] < 0
            if not is_forgotten and (brick + frame) % CHECK_EVERY != 0:
                continue
            for slot in range(512):
                point = np.int64(brick_point[brick, slot])
                if point < 0:
                    continue
                if not is_forgotten:
                    px, py, pz = position_m[point, 0], position_m[point, 1], position_m[point, 2]
                    point_z = R[2, 0] * px + R[2, 1] * py + R[2, 2] * pz + t[2]
                    if point_z < near_m:
                        continue
                    column = np.int64(np.rint(fx * (R[0, 0] * px + R[0, 1] * py + R[0, 2] * pz + t[0]) / point_z + cx))
                    row = np.int64(np.rint(fy * (R[1, 0] * px + R[1, 1] * py + R[1, 2] * pz + t[1]) / point_z + cy))
                    if column < 0 or row < 0 or column >= width_px or row >= height_px:
                        continue
                    limit_m = point_z * (1 + tolerance) + margin_m
                    measured_m = nearest_m[row * width_px + column]
                    if not (measured_m > limit_m and measured_m < np.inf):
                        continue
                    if (FILMED if known[row, column] == Known.CLIP else MADE_UP) < point_source[point]:
                        continue
                    if _nearest_around(nearest_m, row, column, height_px, width_px) <= limit_m:
                        continue
                    confidence[point] *= np.float32(LOOKED_THROUGH_FACTOR)
                    if confidence[point] >= min_confidence:
                        continue
                brick_point[brick, slot] = -1
                brick_count[brick] -= 1
                position_m[point] = np.nan
                confidence[point] = 0
                lost_points = _pushed(lost_points, num_lost_points, point)
                num_lost_points += 1
            if brick_count[brick] == 0:
                brick_of[block, cell] = -1
                lost_bricks = _pushed(lost_bricks, num_lost_bricks, brick)
                num_lost_bricks += 1
    return lost_points[:num_lost_points], lost_bricks[:num_lost_bricks]


@kernel
def free_around_camera(storage, position_m, cell_m, miss_log_odds, generated_weight):
    """Mark unseen cells next to the camera as free: the camera is there, and cannot see anything that near.

    Needs room for eight more blocks.
    """
    x, y, z = np.floor(position_m / cell_m).astype(np.int64)
    for i in range(x - BLIND_CELLS, x + BLIND_CELLS + 1):
        for j in range(y - BLIND_CELLS, y + BLIND_CELLS + 1):
            for k in range(z - BLIND_CELLS, z + BLIND_CELLS + 1):
                block = find_or_add_block(storage, pack_key(i >> 3, j >> 3, k >> 3))
                cell = ((i & 7) << 6) | ((j & 7) << 3) | (k & 7)
                if storage.cell_source[block, cell] == UNSEEN:
                    storage.cell_source[block, cell] = MADE_UP
                    storage.log_odds[block, cell] = -np.float32(miss_log_odds) * np.float32(generated_weight)


@kernel
def _nearest_around(nearest_m, row, column, height_px, width_px):
    """Smallest measured depth of a pixel and its eight neighbours."""
    low = np.float32(np.inf)
    for y in range(max(row - 1, 0), min(row + 2, height_px)):
        for x in range(max(column - 1, 0), min(column + 2, width_px)):
            low = min(low, nearest_m[y * width_px + x])
    return low


@kernel
def _pushed(values, count, value):
    """Write `value` at `count` into `values`, or into a copy of twice the size."""
    if count == len(values):
        larger = np.empty(2 * count, dtype=values.dtype)
        larger[:count] = values
        values = larger
    values[count] = value
    return values


@kernel
def give_back(storage, lost_points, lost_bricks):
    """Put rows on the stacks of rows to reuse."""
    for point in lost_points:
        storage.free_point[storage.counts[NUM_FREE_POINTS]] = point
        storage.counts[NUM_FREE_POINTS] += 1
    for brick in lost_bricks:
        storage.free_brick[storage.counts[NUM_FREE_BRICKS]] = brick
        storage.counts[NUM_FREE_BRICKS] += 1
