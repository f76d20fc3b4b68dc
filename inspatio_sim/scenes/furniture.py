"""Things to put into a room, each a list of solids.

`x, z` is where a thing stands, `floor_y` the height of the floor (y points down), `yaw_rad` turns it.
"""

from __future__ import annotations

import math
from dataclasses import replace

from inspatio_sim.scenes.motion import Vec3
from inspatio_sim.scenes.primitives import Box, Cylinder, Material, Plane, Solid, Sphere
from inspatio_sim.scenes.textures import Texture


def room_walls(low_m: Vec3, high_m: Vec3, floor: Material, ceiling: Material, walls: list[Material]) -> list[Plane]:
    """A closed room: floor, ceiling, and the walls ahead (+z), right (+x), behind and left."""
    ahead, right, behind, left = (walls[i % len(walls)] for i in range(4))
    return [
        Plane(point_m=high_m, normal=(0.0, -1.0, 0.0), material=floor),
        Plane(point_m=low_m, normal=(0.0, 1.0, 0.0), material=ceiling),
        Plane(point_m=high_m, normal=(0.0, 0.0, -1.0), material=ahead),
        Plane(point_m=high_m, normal=(-1.0, 0.0, 0.0), material=right),
        Plane(point_m=low_m, normal=(0.0, 0.0, 1.0), material=behind),
        Plane(point_m=low_m, normal=(1.0, 0.0, 0.0), material=left),
    ]


def placed(solids: list[Solid], x: float, floor_y: float, z: float, yaw_rad: float = 0.0) -> list[Solid]:
    """Move things built around the origin, standing on y = 0, to their place in the room."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    moved: list[Solid] = []
    for solid in solids:
        assert not isinstance(solid, Plane), "planes bound the room, they are not furniture"
        local_x, local_y, local_z = solid.center_m
        center_m = (x + cos * local_x + sin * local_z, floor_y + local_y, z - sin * local_x + cos * local_z)
        if isinstance(solid, Box):
            moved.append(replace(solid, center_m=center_m, yaw_rad=solid.yaw_rad + yaw_rad))
        else:
            moved.append(replace(solid, center_m=center_m))
    return moved


def block(material: Material, width_m: float, height_m: float, depth_m: float, at: Vec3 = (0.0, 0.0, 0.0)) -> Box:
    """A box whose bottom is centred at `at` (heights above the floor are negative y)."""
    x, y, z = at
    return Box(center_m=(x, y - height_m / 2, z), size_m=(width_m, height_m, depth_m), material=material)


def post(material: Material, radius_m: float, height_m: float, at: Vec3 = (0.0, 0.0, 0.0)) -> Cylinder:
    """An upright cylinder whose bottom is centred at `at`."""
    x, y, z = at
    return Cylinder(center_m=(x, y - height_m / 2, z), radius_m=radius_m, height_m=height_m, material=material)


def table(material: Material, width_m: float = 1.3, depth_m: float = 0.75, height_m: float = 0.74) -> list[Solid]:
    top_m, leg_m = 0.05, 0.06
    x, z = width_m / 2 - leg_m, depth_m / 2 - leg_m
    legs = [block(material, leg_m, height_m - top_m, leg_m, (sx * x, 0.0, sz * z)) for sx in (-1, 1) for sz in (-1, 1)]
    return [block(material, width_m, top_m, depth_m, (0.0, top_m - height_m, 0.0)), *legs]


def shelf(material: Material, books: list[Material], width_m: float = 1.2, height_m: float = 1.9) -> list[Solid]:
    """A bookcase facing -z: sides, back, four boards, and blocks of books between them."""
    depth_m, board_m, num_boards = 0.32, 0.03, 4
    step_m = (height_m - board_m) / num_boards
    solids: list[Solid] = [
        block(material, board_m, height_m, depth_m, (-width_m / 2 + board_m / 2, 0.0, 0.0)),
        block(material, board_m, height_m, depth_m, (width_m / 2 - board_m / 2, 0.0, 0.0)),
        block(material, width_m, height_m, 0.02, (0.0, 0.0, depth_m / 2 - 0.01)),
    ]
    for board in range(num_boards + 1):
        solids.append(block(material, width_m - 2 * board_m, board_m, depth_m - 0.02, (0.0, -board * step_m, -0.01)))
    for place, book in enumerate(books):
        level, side = place % num_boards, place // num_boards
        share = (0.45, 0.3, 0.38, 0.5)[level] * (1.0 if side == 0 else 0.7)
        x = (-0.22, 0.18, -0.1, 0.2)[level] * width_m * (1 if side == 0 else -1)
        height = step_m * (0.75 if side == 0 else 0.55)
        solids.append(block(book, share * width_m, height, 0.22, (x, -level * step_m - board_m, 0.02)))
    return solids


def sofa(material: Material, width_m: float = 1.7) -> list[Solid]:
    """A sofa facing -z."""
    return [
        block(material, width_m, 0.42, 0.8),
        block(material, width_m, 0.4, 0.22, (0.0, -0.42, 0.29)),
        block(material, 0.2, 0.18, 0.8, (-width_m / 2 + 0.1, -0.42, 0.0)),
        block(material, 0.2, 0.18, 0.8, (width_m / 2 - 0.1, -0.42, 0.0)),
    ]


def floor_lamp(stand: Material, shade: Material) -> list[Solid]:
    return [
        post(stand, 0.16, 0.04),
        post(stand, 0.025, 1.3, (0.0, -0.04, 0.0)),
        post(shade, 0.2, 0.3, (0.0, -1.3, 0.0)),
    ]


def plant(pot: Material, leaves: Material) -> list[Solid]:
    return [
        post(pot, 0.18, 0.35),
        Sphere(center_m=(0.0, -0.66, 0.0), radius_m=0.32, material=leaves),
        Sphere(center_m=(0.14, -0.92, 0.08), radius_m=0.22, material=leaves),
    ]


def picture(name: str, frame: Material, width_m: float, height_m: float) -> list[Solid]:
    """A framed photograph to hang on a wall behind it (+z), its middle at the origin."""
    photo = Material(texture=Texture(pattern=name), tile_m=(width_m, height_m))
    frame_m = 0.05
    return [
        Box(center_m=(0.0, 0.0, -0.02), size_m=(width_m + 2 * frame_m, height_m + 2 * frame_m, 0.04), material=frame),
        Box(center_m=(0.0, 0.0, -0.03), size_m=(width_m, height_m, 0.04), material=photo),
    ]
