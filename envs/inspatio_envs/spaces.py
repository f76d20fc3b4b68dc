"""Observations by name: their spaces, and how each is read from a world.

| name | plain | pictures | meaning |
| --- | --- | --- | --- |
| `rgb` | uint8 (H, W, 3) | the same | the last frame |
| `depth` | float32 (H, W), 0..100 | uint8 (H, W, 1) | z-depth in metres; made up where known is 0; 0 = unknown |
| `known` | uint8 (H, W), 0..2 | uint8 (H, W, 1) | 0 generated, 1 from the map, 2 from the reference |
| `grid` | uint8 (N, N), 0..2 | uint8 (N, N, 1) | floor plan around the agent: 0 unknown, 1 free, 2 occupied |
| `pose` | float32 (7,) | the same | T_world_camera: x y z in metres, quaternion qx qy qz qw with qw >= 0 |
| `goal` | float32 (4,) | the same | goal: distance in the plane, cos and sin of the bearing, height |
| `goal_image` | uint8 (H, W, 3) | the same | what the camera would see at the goal |

The agent is at the centre of `grid`; up is ahead, left is left. The bearing is positive to the left, the height
is positive where the goal is higher than the camera. The layout `pictures` is for libraries that take every image
as uint8 of 0..255 with channels: depth becomes 0 (unknown), then 1..255 for 0 to 10 m (farther: 255), `known`
and `grid` become 0, 127 and 255.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.kernels import kernel
from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.storage import find_block, pack_key
from inspatio_sim.motion.camera import Array

ObservationName = Literal["rgb", "depth", "known", "grid", "pose", "goal", "goal_image"]
Layout = Literal["plain", "pictures"]

MAX_DEPTH_M = 100.0  # larger depths are clipped to this
MAX_PICTURE_DEPTH_M = 10.0  # the same for the layout `pictures`
MAX_POSITION_M = 1e6
STEP_HEIGHT_M, ROBOT_HEIGHT_M = 0.15, 1.5  # things lower or higher above the floor are not obstacles
CODES = np.array([0, 127, 255], np.uint8)  # codes of 0, 1, 2 in the layout `pictures`


def observation_space(
    names: tuple[ObservationName, ...], size_px: tuple[int, int], grid_cells: int, layout: Layout
) -> spaces.Dict:
    """The flat `Dict` space of the requested observations."""
    return spaces.Dict({name: _space(name, size_px, grid_cells, layout) for name in names})


def _space(name: ObservationName, size_px: tuple[int, int], grid_cells: int, layout: Layout) -> spaces.Box:
    if name in ("rgb", "goal_image"):
        return spaces.Box(0, 255, (*size_px, 3), np.uint8)
    if name == "pose":
        limit = np.array([MAX_POSITION_M] * 3 + [1.0] * 4, np.float32)
        return spaces.Box(-limit, limit, dtype=np.float32)
    if name == "goal":
        low = np.array([0, -1, -1, -MAX_POSITION_M], np.float32)
        return spaces.Box(low, np.array([MAX_POSITION_M, 1, 1, MAX_POSITION_M], np.float32), dtype=np.float32)
    shape = (grid_cells, grid_cells) if name == "grid" else size_px
    if layout == "pictures":
        return spaces.Box(0, 255, (*shape, 1), np.uint8)
    if name == "depth":
        return spaces.Box(0, MAX_DEPTH_M, shape, np.float32)
    return spaces.Box(0, 2, shape, np.uint8)


def read_depth(depth_m: NDArray[np.float32], layout: Layout) -> NDArray[Any]:
    """A copy of depth in the given layout. [H, W]"""
    if layout == "plain":
        return np.minimum(depth_m, np.float32(MAX_DEPTH_M))
    shade = 1 + np.minimum(depth_m / MAX_PICTURE_DEPTH_M, 1) * 254
    return np.where(depth_m > 0, np.rint(shade), 0).astype(np.uint8)[..., None]


def read_codes(codes: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """A copy of 0, 1, 2 in the codes of the layout."""
    return codes.copy() if layout == "plain" else CODES[codes][..., None]


def read_pose(T_world_camera: Array) -> NDArray[np.float32]:
    """Position and quaternion. [4, 4] -> [7]"""
    quaternion = Rotation.from_matrix(T_world_camera[:3, :3]).as_quat(canonical=True)
    limited = np.clip(T_world_camera[:3, 3], -MAX_POSITION_M, MAX_POSITION_M)
    return np.concatenate([limited, np.clip(quaternion, -1, 1)]).astype(np.float32)


def heading(T_world_camera: Array) -> tuple[float, float]:
    """Heading of the camera in the plane: a unit vector (x, z) of the world. For a camera that looks straight down,
    the direction of its upper edge.
    """
    forward = T_world_camera[[0, 2], 2]
    if np.hypot(*forward) < 1e-6:
        forward = -T_world_camera[[0, 2], 1] * np.sign(T_world_camera[1, 2])
    x, z = forward / np.hypot(*forward)
    return float(x), float(z)


def read_goal(T_world_camera: Array, goal_m: Array) -> NDArray[np.float32]:
    """The observation `goal`, see the table above. [4, 4], [3] -> [4]"""
    to_x, height, to_z = goal_m - T_world_camera[:3, 3]
    distance_m = float(np.hypot(to_x, to_z))
    x, z = heading(T_world_camera)
    cos, sin = 1.0, 0.0
    if distance_m > 1e-9:
        cos, sin = (to_x * x + to_z * z) / distance_m, (to_z * x - to_x * z) / distance_m
    values = [min(distance_m, MAX_POSITION_M), cos, sin, np.clip(-height, -MAX_POSITION_M, MAX_POSITION_M)]
    limited = np.clip(values[1:3], -1, 1)
    return np.array([values[0], *limited, values[3]], np.float32)


def read_grid(
    world_map: WorldMap, T_world_camera: Array, floor_y_m: float | None, num_cells: int, cell_m: float
) -> NDArray[np.uint8]:
    """The floor plan around the agent, from the world's current map.

    A cell is occupied if the map is occupied anywhere in the column above its centre, between the highest step and
    the robot's head; otherwise free if part of that column is free; otherwise unknown.

    Args:
        world_map: the map of the agent's world.
        T_world_camera: the agent's camera pose. [4, 4]
        floor_y_m: height of the floor (world y, down); None: the column is 1.35 m with the camera in its middle.
        num_cells: N, along each side.
        cell_m: edge of a cell.

    Returns:
        0 unknown, 1 free, 2 occupied. [N, N]
    """
    x, z = heading(T_world_camera)
    middle_m = (ROBOT_HEIGHT_M + STEP_HEIGHT_M) / 2
    floor_y_m = float(T_world_camera[1, 3]) + middle_m if floor_y_m is None else floor_y_m
    voxel_m = world_map.config.occupancy_voxel_m
    top = int(np.ceil((floor_y_m - ROBOT_HEIGHT_M) / voxel_m - 0.5))
    bottom = int(np.floor((floor_y_m - STEP_HEIGHT_M) / voxel_m - 0.5))
    position_m = np.ascontiguousarray(T_world_camera[:3, 3])
    return _grid_around(world_map.storage, voxel_m, position_m, x, z, top, bottom, num_cells, cell_m)


@kernel
def _grid_around(storage, voxel_m, position_m, heading_x, heading_z, top, bottom, num_cells, cell_m):
    reach_m = 0.5 * (num_cells - 1) * cell_m * (abs(heading_x) + abs(heading_z))  # half extent of the rotated square
    first_x = np.int64(np.floor((position_m[0] - reach_m) / voxel_m)) >> 3  # in blocks
    first_z = np.int64(np.floor((position_m[2] - reach_m) / voxel_m)) >> 3
    last_x = np.int64(np.floor((position_m[0] + reach_m) / voxel_m)) >> 3
    last_z = np.int64(np.floor((position_m[2] + reach_m) / voxel_m)) >> 3
    plan = np.zeros((8 * (last_x - first_x + 1), 8 * (last_z - first_z + 1)), dtype=np.uint8)
    for block_x in range(first_x, last_x + 1):
        for block_z in range(first_z, last_z + 1):
            for block_y in range(top >> 3, (bottom >> 3) + 1):
                block = find_block(storage, pack_key(block_x, block_y, block_z))
                if block >= 0:
                    first_y, last_y = max(top - 8 * block_y, 0), min(bottom - 8 * block_y, 7)
                    square = plan[8 * (block_x - first_x) :, 8 * (block_z - first_z) :]
                    _add_block(storage.log_odds[block], first_y, last_y, square)
    result = np.empty((num_cells, num_cells), dtype=np.uint8)
    for row in range(num_cells):
        ahead = (0.5 * num_cells - 0.5 - row) * cell_m
        for column in range(num_cells):
            left = (0.5 * num_cells - 0.5 - column) * cell_m
            x = np.int64(np.floor((position_m[0] + ahead * heading_x - left * heading_z) / voxel_m)) - 8 * first_x
            z = np.int64(np.floor((position_m[2] + ahead * heading_z + left * heading_x) / voxel_m)) - 8 * first_z
            # Rounding may lead one voxel beyond the square, at its very corners.
            result[row, column] = plan[min(max(x, 0), len(plan) - 1), min(max(z, 0), plan.shape[1] - 1)]
    return result


@kernel
def _add_block(log_odds, first_y, last_y, plan):
    """Put some layers of a block [512] into the first 8 x 8 cells of a floor plan."""
    for x in range(8):
        for y in range(first_y, last_y + 1):
            for z in range(8):
                odds = log_odds[(x << 6) | (y << 3) | z]
                code = np.uint8(2) if odds > 0 else np.uint8(odds < 0)
                plan[x, z] = max(plan[x, z], code)
