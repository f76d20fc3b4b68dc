"""The ray caster for the CPU: what `raycast.render` shows with one ray a pixel, several times as fast.

Tiles of pixels look only at the solids that can be seen in them, and their shadow rays only at those that can
stand between them and the lamp. The maths is that of `solids.py` and `mipmap.py`, a ray at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import chunk_bounds, kernel, run_chunks
from inspatio_sim.motion.camera import Array, Intrinsics
from inspatio_sim.scenes.mipmap import LEVEL_START, NUM_LEVELS, TEXELS_PER_TEXTURE, texel_table
from inspatio_sim.scenes.primitives import Box, Cylinder, Plane, Sphere
from inspatio_sim.scenes.raycast import MIN_SLANT, PIXELS_PER_TEXEL, SHADOW_MARGIN, Views, checked_views
from inspatio_sim.scenes.scene import Scene
from inspatio_sim.scenes.textures import SIZE_PX

TILE_PX = 16
PLANE, BOX, SPHERE, CYLINDER = range(4)
KIND_OF = {Plane: PLANE, Box: BOX, Sphere: SPHERE, Cylinder: CYLINDER}
LEVEL_STARTS = tuple(LEVEL_START)
INF = math.inf
HALF_PI = 0.5 * math.pi


# What is known of a solid, a row of numbers: its kind, its middle (a plane: its normal), its half sides (a sphere and a
# cylinder: radius, half height; a plane: offset along the normal), the axes u and v of a plane or cosine and sine of
# a box's yaw, the size of a texture tile, and the radius of a sphere around it (inf for a plane).
KIND, MIDDLE, SIZE, U_AXIS, V_AXIS, TILE, BOUND = 0, 1, 4, 7, 10, 13, 15
COS, SIN = U_AXIS, U_AXIS + 1
ROW_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A scene as numbers. S solids, L lamps, F frames."""

    solids: Array  # [F, S, ROW_LENGTH]
    tint: Array  # [S, 3]
    texture: NDArray[np.int64]  # row of the texture's first texel. [S]
    texels: NDArray[np.float32]  # [M, 3]
    lamps: Array  # position, colour, reach, whether it casts shadows. [L, 8]
    sky: Array  # ambient and background colour. [2, 3]
    far_m: float

    def arguments(self) -> tuple[object, ...]:
        return tuple(vars(self).values())


def render_fast(
    scene: Scene, intrinsics: Intrinsics, T_world_camera: ArrayLike, time_s: ArrayLike, *, num_threads: int = 1
) -> Views:
    """Look at the scene from F cameras, each at its own time; arguments as for `raycast.render`.

    Args:
        scene: what is there.
        intrinsics: shared by all cameras.
        T_world_camera: camera poses. [F, 4, 4]
        time_s: when each camera looks. [F]
        num_threads: frames looked at side by side; the result does not depend on it.

    Raises:
        InputError: for poses that are no poses, or another number of times.
    """
    poses, times = checked_views(T_world_camera, time_s)
    if num_threads < 1:
        raise InputError(f"num_threads={num_threads}: want at least 1")
    table = _table(scene, times).arguments()
    shape = (len(poses), intrinsics.height_px, intrinsics.width_px)
    rgb_u8, depth_m = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
    object_id, normal = np.empty(shape, np.int16), np.empty((*shape, 3), np.float32)
    camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])
    frames = chunk_bounds(len(poses), min(num_threads, len(poses)))
    out = (rgb_u8, depth_m, object_id, normal)
    run_chunks(_render_frames, [(*bounds, poses, camera, table, *out) for bounds in frames])
    return Views(
        rgb_u8=torch.from_numpy(rgb_u8),
        depth_m=torch.from_numpy(depth_m),
        object_id=torch.from_numpy(object_id),
        normal=torch.from_numpy(normal),
    )


def _table(scene: Scene, times: Array) -> _Table:
    rows = np.zeros((len(times), len(scene.solids), ROW_LENGTH))
    time = torch.as_tensor(times, dtype=torch.float32)
    for i, solid in enumerate(scene.solids):
        row = rows[:, i]
        row[:, KIND] = KIND_OF[type(solid)]
        row[:, TILE : TILE + 2] = solid.material.tile_m
        if isinstance(solid, Plane):
            normal = np.asarray(solid.normal) / np.linalg.norm(solid.normal)
            hint = np.array([0.0, 0.0, 1.0] if abs(normal[1]) > 0.99 else [0.0, 1.0, 0.0])
            v_axis = hint - (hint @ normal) * normal
            v_axis /= np.linalg.norm(v_axis)
            row[:, MIDDLE : MIDDLE + 3] = normal
            row[:, SIZE] = normal @ np.asarray(solid.point_m)
            row[:, U_AXIS : U_AXIS + 3], row[:, V_AXIS : V_AXIS + 3] = np.cross(normal, v_axis), v_axis
            row[:, BOUND] = INF
            continue
        row[:, MIDDLE : MIDDLE + 3] = solid.center_m
        if solid.motion is not None:
            row[:, MIDDLE : MIDDLE + 3] += solid.motion.offset_m(time).numpy()
        if isinstance(solid, Box):
            row[:, SIZE : SIZE + 3] = 0.5 * np.asarray(solid.size_m)
            row[:, COS], row[:, SIN] = math.cos(solid.yaw_rad), math.sin(solid.yaw_rad)
        elif isinstance(solid, Sphere):
            row[:, SIZE] = solid.radius_m
        else:
            row[:, SIZE], row[:, SIZE + 1] = solid.radius_m, 0.5 * solid.height_m
        row[:, BOUND] = np.linalg.norm(row[:, SIZE : SIZE + 3], axis=-1)
    materials = [solid.material for solid in scene.solids]
    textures = tuple(dict.fromkeys(material.texture for material in materials))
    lamps = [(*lamp.position_m, *lamp.color, lamp.reach_m, float(lamp.casts_shadows)) for lamp in scene.lights]
    return _Table(
        solids=rows,
        tint=np.array([m.tint for m in materials], dtype=np.float64),
        texture=np.array([textures.index(m.texture) * TEXELS_PER_TEXTURE for m in materials]),
        texels=texel_table(textures, torch.device("cpu")).numpy(),
        lamps=np.array(lamps, dtype=np.float64).reshape(-1, 8),
        sky=np.array([scene.ambient, scene.background], dtype=np.float64),
        far_m=float(scene.far_m),
    )


@kernel
def _intersect(solids, i, ox, oy, oz, dx, dy, dz):  # noqa: ANN001, ANN202
    """Ray parameter at which a ray enters solid `i`, inf where it misses."""
    kind = solids[i, KIND]
    if kind == PLANE:
        n_x, n_y, n_z = solids[i, MIDDLE], solids[i, MIDDLE + 1], solids[i, MIDDLE + 2]
        slope = n_x * dx + n_y * dy + n_z * dz
        height = n_x * ox + n_y * oy + n_z * oz - solids[i, SIZE]
        return -height / slope if slope < 0 and height > 0 else INF
    x, y, z = ox - solids[i, MIDDLE], oy - solids[i, MIDDLE + 1], oz - solids[i, MIDDLE + 2]
    size = solids[i, SIZE]
    if kind == SPHERE:
        a = dx * dx + dy * dy + dz * dz
        b = x * dx + y * dy + z * dz
        discriminant = b * b - a * (x * x + y * y + z * z - size * size)
        if discriminant <= 0:
            return INF
        t = (-b - math.sqrt(discriminant)) / a
        return t if t > 0 else INF
    half_height = solids[i, SIZE + 1]
    first, second = (-half_height - y) / dy, (half_height - y) / dy
    enter, leave = min(first, second), max(first, second)
    if kind == CYLINDER:
        a = max(dx * dx + dz * dz, 1e-12)
        b = x * dx + z * dz
        discriminant = b * b - a * (x * x + z * z - size * size)
        if discriminant <= 0:
            return INF
        root = math.sqrt(discriminant)
        enter, leave = max(enter, (-b - root) / a), min(leave, (-b + root) / a)
    else:
        cos, sin, depth = solids[i, COS], solids[i, SIN], solids[i, SIZE + 2]
        from_x, from_z = cos * x - sin * z, sin * x + cos * z
        along_x, along_z = cos * dx - sin * dz, sin * dx + cos * dz
        first, second = (-size - from_x) / along_x, (size - from_x) / along_x
        enter, leave = max(enter, min(first, second)), min(leave, max(first, second))
        first, second = (-depth - from_z) / along_z, (depth - from_z) / along_z
        enter, leave = max(enter, min(first, second)), min(leave, max(first, second))
    return enter if 0 < enter < leave else INF


@kernel
def _fit(tile_m, length_m):  # noqa: ANN001, ANN202
    """The tile stretched so that a whole number of tiles fills the length."""
    return length_m / max(1.0, np.rint(length_m / tile_m))


@kernel
def _face(x, y, z):  # noqa: ANN001, ANN202
    """Axis and side of the cube's face under a point."""
    face, largest = 0, x
    if abs(y) > abs(largest):
        face, largest = 1, y
    if abs(z) > abs(largest):
        face, largest = 2, z
    return face, -1.0 if largest < 0 else 1.0


@kernel
def _on_face(x, y, z, face, side):  # noqa: ANN001, ANN202
    """A vector along a face's right and down."""
    right = side * z if face == 0 else (-side * x if face == 2 else x)
    return right, z if face == 1 else y


@kernel
def _surface(solids, i, px, py, pz):  # noqa: ANN001, ANN202
    """Normal, texture coordinates and texture repeats a metre at a point of solid `i`'s surface."""
    kind, tile_u, tile_v, size = solids[i, KIND], solids[i, TILE], solids[i, TILE + 1], solids[i, SIZE]
    repeats = 1 / min(tile_u, tile_v)
    if kind == PLANE:
        u = (px * solids[i, U_AXIS] + py * solids[i, U_AXIS + 1] + pz * solids[i, U_AXIS + 2]) / tile_u
        v = (px * solids[i, V_AXIS] + py * solids[i, V_AXIS + 1] + pz * solids[i, V_AXIS + 2]) / tile_v
        return solids[i, MIDDLE], solids[i, MIDDLE + 1], solids[i, MIDDLE + 2], u, v, repeats
    x, y, z = px - solids[i, MIDDLE], py - solids[i, MIDDLE + 1], pz - solids[i, MIDDLE + 2]
    if kind == BOX:
        cos, sin, half_height, half_depth = solids[i, COS], solids[i, SIN], solids[i, SIZE + 1], solids[i, SIZE + 2]
        local_x, local_z = cos * x - sin * z, sin * x + cos * z
        face, side = _face(local_x / size, y / half_height, local_z / half_depth)
        right, down = _on_face(local_x, y, local_z, face, side)
        half_right, half_down = _on_face(size, half_height, half_depth, face, 1.0)
        u, v = (right + abs(half_right)) / tile_u, (down + abs(half_down)) / tile_v
        if face == 0:
            return side * cos, 0.0, -side * sin, u, v, repeats
        if face == 1:
            return 0.0, side, 0.0, u, v, repeats
        return side * sin, 0.0, side * cos, u, v, repeats
    if kind == SPHERE:
        length = math.sqrt(x * x + y * y + z * z)
        x, y, z = x / length, y / length, z / length
        face, side = _face(x, y, z)
        largest = max(abs(x), abs(y), abs(z))
        right, down = _on_face(x / largest, y / largest, z / largest, face, side)
        fit_u, fit_v = _fit(tile_u, HALF_PI * size), _fit(tile_v, HALF_PI * size)
        return x, y, z, math.atan(right) * size / fit_u, math.atan(down) * size / fit_v, 1 / min(fit_u, fit_v)
    half_height, across = solids[i, SIZE + 1], math.hypot(x, z)
    fit_u = _fit(tile_u, 2 * math.pi * size)
    repeats = 1 / min(tile_u, tile_v, fit_u)
    if abs(y) / half_height > across / size:
        return 0.0, (-1.0 if y < 0 else 1.0), 0.0, x / tile_u, z / tile_v, repeats
    across = max(across, 1e-9)
    return x / across, 0.0, z / across, math.atan2(x, -z) * size / fit_u, (y + half_height) / tile_v, repeats


@kernel
def _add_level(texels, start, level, u, v, weight, rgb):  # noqa: ANN001, ANN202
    """Add one mip level's bilinear colour, times `weight`, to `rgb`."""
    size = SIZE_PX >> level
    x, y = u * size - 0.5, v * size - 0.5
    left, top = math.floor(x), math.floor(y)
    fraction_x, fraction_y = x - left, y - top
    low_x, low_y = int(left) & (size - 1), int(top) & (size - 1)
    high_x, high_y = (low_x + 1) & (size - 1), (low_y + 1) & (size - 1)
    base = start + LEVEL_STARTS[level]
    upper, lower = base + low_y * size, base + high_y * size
    for channel in range(3):
        a, b = texels[upper + low_x, channel], texels[upper + high_x, channel]
        c, d = texels[lower + low_x, channel], texels[lower + high_x, channel]
        high, low = a + (b - a) * fraction_x, c + (d - c) * fraction_x
        rgb[channel] += weight * (high + (low - high) * fraction_y)


@kernel
def _in_cone(solids, ox, oy, oz, axis, half_angle, reach):  # noqa: ANN001, ANN202
    """Places of the solids that meet a cone about `axis` from `o`, `reach` long."""
    found = np.empty(len(solids), np.int64)
    count = 0
    for i in range(len(solids)):
        bound = solids[i, BOUND]
        if bound == INF:
            found[count] = i
            count += 1
            continue
        x, y, z = solids[i, MIDDLE] - ox, solids[i, MIDDLE + 1] - oy, solids[i, MIDDLE + 2] - oz
        distance = math.sqrt(x * x + y * y + z * z)
        if distance > bound:
            if distance - bound > reach:
                continue
            cosine = (x * axis[0] + y * axis[1] + z * axis[2]) / distance
            if math.acos(min(1.0, max(-1.0, cosine))) > half_angle + math.asin(bound / distance):
                continue
        found[count] = i
        count += 1
    return found[:count]


@kernel
def _cone_around(rays):  # noqa: ANN001, ANN202
    """Axis and half angle of a cone around some directions. [N, 3]"""
    axis = np.zeros(3)
    for i in range(len(rays)):
        inverse = 1 / math.sqrt(rays[i, 0] ** 2 + rays[i, 1] ** 2 + rays[i, 2] ** 2)
        for k in range(3):
            axis[k] += rays[i, k] * inverse
    length = math.sqrt(axis[0] ** 2 + axis[1] ** 2 + axis[2] ** 2)
    if length < 1e-9:
        return axis, math.pi
    axis /= length
    cosine = 1.0
    for i in range(len(rays)):
        norm = math.sqrt(rays[i, 0] ** 2 + rays[i, 1] ** 2 + rays[i, 2] ** 2)
        cosine = min(cosine, (rays[i, 0] * axis[0] + rays[i, 1] * axis[1] + rays[i, 2] * axis[2]) / norm)
    return axis, math.acos(max(-1.0, cosine)) + 1e-3


@kernel
def _shine(lamp, solids, points, normals, ids, light):  # noqa: ANN001, ANN202
    """Add what arrives from one lamp at the points of a tile. [N, 3]"""
    rays = np.empty_like(points)
    for n in range(len(points)):
        for k in range(3):
            rays[n, k] = points[n, k] - lamp[k]
    blockers = np.empty(0, np.int64)
    if lamp[7] > 0:
        axis, half_angle = _cone_around(rays)
        reach = 0.0
        for n in range(len(rays)):
            reach = max(reach, rays[n, 0] ** 2 + rays[n, 1] ** 2 + rays[n, 2] ** 2)
        blockers = _in_cone(solids, lamp[0], lamp[1], lamp[2], axis, half_angle, math.sqrt(reach))
    last = -1  # what shaded the pixel before mostly shades this one
    for n in range(len(rays)):
        if ids[n] < 0:
            continue
        x, y, z = rays[n, 0], rays[n, 1], rays[n, 2]
        distance_2 = x * x + y * y + z * z
        cosine = -(x * normals[n, 0] + y * normals[n, 1] + z * normals[n, 2]) / math.sqrt(distance_2)
        if cosine <= 0:
            continue
        is_dark = False
        for k in range(-1, len(blockers)):
            i = last if k < 0 else blockers[k]
            # Planes bound the free space from outside: none stands between a lamp and a point that is seen.
            if i < 0 or solids[i, KIND] == PLANE:
                continue
            t = _intersect(solids, i, lamp[0], lamp[1], lamp[2], x, y, z)
            if t < 1 - SHADOW_MARGIN:
                is_dark = True
                last = i
                break
        if is_dark:
            continue
        strength = cosine / (1 + distance_2 / (lamp[6] * lamp[6]))
        for channel in range(3):
            light[n, channel] += strength * lamp[3 + channel]


@kernel
def _render_frames(start, stop, poses, camera, table, rgb_u8, depth_m, object_id, normal):  # noqa: ANN001, ANN202
    """Some frames, tile by tile."""
    rows_of_solids, tint, texture, texels, lamps, sky, far_m = table
    height, width = depth_m.shape[1:]
    color = np.empty(3)
    for frame in range(start, stop):
        R, origin, solids = poses[frame, :3, :3].copy(), poses[frame, :3, 3].copy(), rows_of_solids[frame]
        eye_x, eye_y, eye_z = origin
        for top in range(0, height, TILE_PX):
            for left in range(0, width, TILE_PX):
                rows, columns = min(TILE_PX, height - top), min(TILE_PX, width - left)
                count = rows * columns
                rays = np.empty((count, 3))
                for n in range(count):
                    x = (left + n % columns - camera[2]) / camera[0]
                    y = (top + n // columns - camera[3]) / camera[1]
                    for axis in range(3):
                        rays[n, axis] = R[axis, 0] * x + R[axis, 1] * y + R[axis, 2]
                cone, half_angle = _cone_around(rays)
                seen = _in_cone(solids, eye_x, eye_y, eye_z, cone, half_angle, INF)
                ids, depths = np.full(count, -1), np.full(count, far_m)
                points, normals = np.zeros((count, 3)), np.zeros((count, 3))
                coordinates = np.zeros((count, 3))
                for n in range(count):
                    dx, dy, dz = rays[n, 0], rays[n, 1], rays[n, 2]
                    for i in seen:
                        t = _intersect(solids, i, eye_x, eye_y, eye_z, dx, dy, dz)
                        if t < depths[n]:
                            depths[n], ids[n] = t, i
                    for axis in range(3):
                        points[n, axis] = origin[axis] + depths[n] * rays[n, axis]
                    i = ids[n]
                    if i >= 0:
                        nx, ny, nz, u, v, repeats = _surface(solids, i, points[n, 0], points[n, 1], points[n, 2])
                        normals[n, 0], normals[n, 1], normals[n, 2] = nx, ny, nz
                        coordinates[n, 0], coordinates[n, 1], coordinates[n, 2] = u, v, repeats
                light = np.empty((count, 3))
                for n in range(count):  # a little more from above than from below
                    for channel in range(3):
                        light[n, channel] = sky[0, channel] * (1 - 0.08 * normals[n, 1])
                for lamp in range(len(lamps)):
                    _shine(lamps[lamp], solids, points, normals, ids, light)
                for n in range(count):
                    row, column, i = top + n // columns, left + n % columns, ids[n]
                    object_id[frame, row, column] = i
                    depth_m[frame, row, column] = depths[n] if i >= 0 else 0
                    color[:] = 0
                    if i >= 0:
                        dx, dy, dz = rays[n, 0], rays[n, 1], rays[n, 2]
                        slant = -(dx * normals[n, 0] + dy * normals[n, 1] + dz * normals[n, 2])
                        slant = max(MIN_SLANT, slant / math.sqrt(dx * dx + dy * dy + dz * dz))
                        footprint = PIXELS_PER_TEXEL * depths[n] / camera[0] / slant * coordinates[n, 2]
                        level = min(math.log2(max(1.0, footprint * SIZE_PX)), NUM_LEVELS - 1.001)
                        finer = int(level)
                        u, v, mix = coordinates[n, 0], coordinates[n, 1], level - finer
                        _add_level(texels, texture[i], finer, u, v, 1 - mix, color)
                        _add_level(texels, texture[i], finer + 1, u, v, mix, color)
                    for channel in range(3):
                        normal[frame, row, column, channel] = normals[n, channel]
                        value = color[channel] * tint[i, channel] * light[n, channel] if i >= 0 else sky[1, channel]
                        rgb_u8[frame, row, column, channel] = int(min(1.0, max(0.0, value)) * 255 + 0.5)
