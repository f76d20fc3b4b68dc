"""The map: what an update and a render cost, and how well it knows the room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Result, median_ms, run
from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.motion.camera import Intrinsics, inverse, pose_from
from inspatio_sim.scenes.demo import HORIZONTAL_FOV_RAD, camera_path, truth
from inspatio_sim.scenes.demo_room import demo_room

SIZE_PX = (480, 832)
INTRINSICS = Intrinsics.from_fov(HORIZONTAL_FOV_RAD, SIZE_PX[1], SIZE_PX[0])

WALK_SIZE_PX = (120, 208)  # the walk measures growth, not size
WALK_FRAMES = 2000
WALK_STEP_M = 0.15
WALK_WINDOW = 25  # frames around the 100th and the 2,000th whose median counts

TURN_FRAMES = 36
TURN_SIZE_PX = (240, 416)
SHIFT_M = np.array([0.029, 0.021, 0.035])
SAMPLES_PER_EDGE = 5  # points asked along each edge of a cell to find the surface that crosses it


def results() -> list[dict[str, Any]]:
    """Everything below, as rows for other benchmarks."""
    return [asdict(result) for result in measure()]


def measure() -> list[Result]:
    return [*update_cost(), *render_cost(), *growth(), *room_after_one_turn()]


def update_cost() -> Sequence[Result]:
    """A 480x832 frame into a map that already knows the room: ten views in turn, then again."""
    views = camera_path("turn", 10)
    frames = truth(views, np.zeros(10), INTRINSICS, supersample=1)
    rgb_u8, depth_m = frames.rgb_u8.numpy(), frames.depth_m.numpy()
    known = np.full(SIZE_PX, 2, dtype=np.uint8)
    world_map = WorldMap()
    count = 0

    def insert() -> None:
        nonlocal count
        i = count % 10
        world_map.insert(rgb_u8[i], depth_m[i], known, INTRINSICS, views[i], count / 24)
        count += 1

    for _ in range(9):
        insert()
    milliseconds = median_ms(insert, repeats=20)
    return [Result(name="map update, one 480x832 frame", value=milliseconds, unit="ms", floor=40, better="lower")]


def render_cost(num_points: int = 2_000_000) -> Sequence[Result]:
    """A 480x832 view of 2 M points: corridor walls, mapped by walking through."""
    world_map = WorldMap(MapConfig(occupancy_voxel_m=0.08))
    frame = 0
    while world_map.num_points < num_points:
        T_world_camera = pose_from(t_m=[0, 0, 1.0 * frame])
        _insert_corridor(world_map, INTRINSICS, T_world_camera, frame)
        frame += 1
    middle = pose_from(t_m=[0, 0, 0.5 * frame])
    milliseconds = median_ms(lambda: world_map.render(INTRINSICS, middle))
    return [
        Result(name="map render, 480x832 from 2 M points", value=milliseconds, unit="ms", floor=40, better="lower"),
        Result(
            name="memory of a map of 2 M points",
            value=world_map.memory_bytes / world_map.num_points,
            unit="B/point",
            floor=320,
            better="lower",
        ),
    ]


def growth() -> Sequence[Result]:
    """Walk 300 m down a corridor: the 2,000th update beside the 100th."""
    intrinsics = INTRINSICS.resized(WALK_SIZE_PX[1], WALK_SIZE_PX[0])
    world_map = WorldMap()
    times_s = []
    for frame in range(WALK_FRAMES):
        T_world_camera = pose_from(t_m=[0, 0, WALK_STEP_M * frame])
        times_s.append(_insert_corridor(world_map, intrinsics, T_world_camera, frame))
    early = np.median(times_s[100 - WALK_WINDOW : 100 + WALK_WINDOW])
    late = np.median(times_s[-2 * WALK_WINDOW :])
    name = f"map update, frame {WALK_FRAMES} / frame 100 of a walk"
    return [Result(name=name, value=float(late / early), unit="", floor=1.3, better="lower")]


def _insert_corridor(
    world_map: WorldMap, intrinsics: Intrinsics, T_world_camera: NDArray[np.float64], frame: int
) -> float:
    """One frame between two walls 1.6 m apart with posts every 3 m; returns the processor seconds of the update."""
    height_px, width_px = intrinsics.height_px, intrinsics.width_px
    v, u = np.mgrid[:height_px, :width_px].astype(np.float32)
    x, y = (u - intrinsics.cx_px) / intrinsics.fx_px, (v - intrinsics.cy_px) / intrinsics.fy_px
    depth_m = np.minimum(0.8 / np.maximum(np.abs(x), 1e-3), 1.2 / np.maximum(np.abs(y), 1e-3))
    post_m = 3.0 - T_world_camera[2, 3] % 3.0
    depth_m = np.where((depth_m > post_m) & (np.abs(x * post_m) > 0.6), post_m, depth_m).astype(np.float32)
    z_m = depth_m + T_world_camera[2, 3]
    rgb_u8 = np.stack([127 + 100 * np.sin(3 * wave) for wave in (z_m, y * depth_m, x * depth_m)], axis=-1)
    rgb_u8, known = rgb_u8.astype(np.uint8), np.full((height_px, width_px), 2, dtype=np.uint8)
    start = time.process_time()
    world_map.insert(rgb_u8, depth_m, known, intrinsics, T_world_camera, frame / 24)
    return time.process_time() - start


def room_after_one_turn() -> Sequence[Result]:
    """Turn once round in the demo room, then compare the cells with the room itself.

    A cell is truly occupied when a surface of the room crosses it (some of its sample points are solid,
    some are not, by `Scene.is_solid`), and truly free when none of its points is solid; in both cases a
    camera must have seen one of the points that are not solid. Cells that no camera could see are left out.
    The moving ball is no part of the room: cells on its way are left out too. The room's walls lie exactly
    on faces of cells, where either side is right; so the map's frame is shifted by `SHIFT_M`.
    """
    intrinsics = INTRINSICS.resized(TURN_SIZE_PX[1], TURN_SIZE_PX[0])
    poses = camera_path("turn", TURN_FRAMES)
    times_s = np.arange(TURN_FRAMES) / 12
    frames = truth(poses, times_s, intrinsics, supersample=1)
    rgb_u8, depth_m = frames.rgb_u8.numpy(), frames.depth_m.numpy()
    world_map = WorldMap()
    known = np.full(TURN_SIZE_PX, 2, dtype=np.uint8)
    for i in range(TURN_FRAMES):
        T_map_camera = pose_from(t_m=SHIFT_M) @ poses[i]
        world_map.insert(rgb_u8[i], depth_m[i], known, intrinsics, T_map_camera, times_s[i])
    cells_m = _cells_of_the_room(world_map)
    truth_class = _true_class(
        cells_m - SHIFT_M, world_map.config.occupancy_voxel_m, intrinsics, poses, depth_m, times_s
    )
    log_odds = world_map.occupancy_at(cells_m)
    return [
        Result(name=f"{name} of {(truth_class == value).sum()} visible cells after one turn",
               value=_iou(is_it & (truth_class != -1), truth_class == value), unit="IoU", floor=0.9, better="higher")
        for name, value, is_it in (("occupied", 1, log_odds > 0), ("free", 0, log_odds < 0))
    ]  # fmt: skip


def _iou(a: NDArray, b: NDArray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _cells_of_the_room(world_map: WorldMap) -> NDArray[np.float64]:
    """Centres of all cells in the scene's box. [N, 3]"""
    scene, cell_m = demo_room(0), world_map.config.occupancy_voxel_m
    low, high = np.floor(np.array(scene.low_m) / cell_m) - 1, np.ceil(np.array(scene.high_m) / cell_m) + 1
    axes = [np.arange(first, last) for first, last in zip(low, high, strict=True)]
    return (np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) + 0.5) * cell_m


def _true_class(cells_m, cell_m, intrinsics, poses, depth_m, times_s) -> NDArray[np.int64]:  # noqa: ANN001
    """1 occupied, 0 free, -1 not seen or on the ball's way. [N]"""
    scene = demo_room(0)
    centres = torch.as_tensor(cells_m, dtype=torch.float32)
    distance_m = scene.distance(centres, include_moving=False).numpy()
    is_swept = np.zeros(len(cells_m), dtype=bool)
    for t in times_s:
        is_swept |= scene.distance(centres, float(t)).numpy() < np.minimum(distance_m - 1e-4, cell_m)
    offsets = np.linspace(-0.5, 0.5, SAMPLES_PER_EDGE) * cell_m  # corners included
    corners = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3)
    is_near = np.abs(distance_m) <= 0.5 * np.sqrt(3) * cell_m  # a surface may cross the cell
    result = np.full(len(cells_m), -1)
    for chosen, samples in ((is_near, corners), (distance_m > 0.5 * np.sqrt(3) * cell_m, np.zeros((1, 3)))):
        for rows in np.array_split(np.nonzero(chosen & ~is_swept)[0], 16):
            points_m = cells_m[rows, None] + samples
            flat = torch.as_tensor(points_m.reshape(-1, 3), dtype=torch.float32)
            is_solid = np.asarray(scene.is_solid(flat, include_moving=False)).reshape(points_m.shape[:2])
            is_seen = np.zeros(is_solid.shape, dtype=bool)
            for T_world_camera, depth in zip(poses, depth_m, strict=True):
                is_seen |= _is_visible(points_m, intrinsics, T_world_camera, depth)
            is_known = np.any(is_seen & ~is_solid, axis=1)
            result[rows[is_known]] = np.any(is_solid[is_known], axis=1)
    return result


def _is_visible(points_m, intrinsics, T_world_camera, depth_m) -> NDArray[np.bool_]:  # noqa: ANN001
    """Does a camera see these points, or through them? [..., 3] -> [...]"""
    T = inverse(T_world_camera)
    x, y, z = np.moveaxis(points_m @ T[:3, :3].T + T[:3, 3], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.rint(intrinsics.fx_px * x / z + intrinsics.cx_px)
        v = np.rint(intrinsics.fy_px * y / z + intrinsics.cy_px)
    inside = (z > 0.1) & (u >= 0) & (v >= 0) & (u < intrinsics.width_px) & (v < intrinsics.height_px)
    surface_m = depth_m[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
    return inside & (z <= surface_m)


if __name__ == "__main__":
    run("mapping", __doc__ or "", measure)
