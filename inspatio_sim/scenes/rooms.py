"""Random scenes by (seed, index): furnished rooms, corridors and open floors, to train and test on.

The world origin is where a camera starts: level, looking along +z, with nothing nearer than `CLEARANCE_M`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.furniture import block, floor_lamp, picture, placed, plant, post, room_walls, table
from inspatio_sim.scenes.motion import BackAndForth, Circular, Motion, Vec3
from inspatio_sim.scenes.primitives import Box, Material, Plane, Solid, Sphere
from inspatio_sim.scenes.scene import Light, Scene
from inspatio_sim.scenes.textures import PICTURES, Texture

Layout = Literal["room", "corridor", "open"]

CLEARANCE_M = 0.6  # free radius round the origin
WALL_GAP_M = 0.15  # between furniture and walls

# A fixed set of textures, varied by tint and size: drawing a texture takes longer than rendering a frame.
TEXTURES = tuple(
    Texture(pattern=pattern, color_a=(0.95, 0.95, 0.95), color_b=(0.5, 0.5, 0.5), seed=seed)
    for pattern in ("plaster", "checker", "bricks", "planks", "wood", "tiles", "wallpaper", "weave")
    for seed in (0, 1)
)


def random_room(seed: int, index: int = 0, *, layout: Layout | None = None) -> Scene:
    """Make a scene; the same (seed, index) always makes the same one.

    Args:
        seed: of the whole set of scenes, at least 0.
        index: of the scene within the set, at least 0.
        layout: kind of place; None draws one (rooms half the time).
    """
    if seed < 0 or index < 0:
        raise InputError(f"seed={seed}, index={index}: want them at least 0")
    rng = np.random.default_rng([seed, index])
    drawn_layout = str(rng.choice(get_args(Layout), p=[0.5, 0.25, 0.25]))  # always drawn: the rest stays the same
    place = layout or drawn_layout
    if place not in get_args(Layout):
        raise InputError(f"layout={layout!r}: want one of {', '.join(get_args(Layout))}")
    low_m, high_m = _extent(rng, place)
    floor, ceiling, *walls = (_material(rng, (1.4, 2.6)) for _ in range(6))
    if place == "open":
        solids: list[Solid] = [Plane(point_m=high_m, normal=(0.0, -1.0, 0.0), material=floor)]
        lamp_m = (low_m[0] * 0.5, high_m[1] - 8.0, low_m[2] * 0.5)
        lights = (Light(position_m=lamp_m, color=(0.75, 0.72, 0.65), reach_m=12.0),)
    else:
        solids = [*room_walls(low_m, high_m, floor, ceiling, walls), *_pictures(rng, low_m, high_m)]
        lamp_m = (rng.uniform(-0.3, 0.3), low_m[1] + 0.2, rng.uniform(0.3, 0.7) * high_m[2])
        brightness = rng.uniform(0.55, 0.85)
        lights = (Light(position_m=lamp_m, color=tuple(brightness * rng.uniform(0.85, 1.0, 3)), reach_m=3.5),)
    solids += _furniture(rng, low_m, high_m, count=int(rng.integers(3, 8)))
    ambient = float(rng.uniform(0.42, 0.55))
    return Scene(solids=tuple(solids), lights=lights, low_m=low_m, high_m=high_m, ambient=(ambient, ambient, ambient))


def _extent(rng: np.random.Generator, layout: str) -> tuple[Vec3, Vec3]:
    """Low and high corner of the place; the origin lies inside, a camera's height above the floor."""
    width_m, length_m = {"room": (4.5, 5.5), "corridor": (2.2, 9.0), "open": (12.0, 12.0)}[layout]
    width_m, length_m = width_m * rng.uniform(0.85, 1.3), length_m * rng.uniform(0.85, 1.3)
    left_m, behind_m = -width_m * rng.uniform(0.4, 0.6), -length_m * rng.uniform(0.2, 0.4)
    floor_y = rng.uniform(0.5, 1.6)
    ceiling_y = floor_y - rng.uniform(2.3, 3.0)
    return (left_m, ceiling_y, behind_m), (left_m + width_m, floor_y, behind_m + length_m)


def _material(rng: np.random.Generator, tile_m: tuple[float, float] = (0.6, 1.2)) -> Material:
    tint = 1 - 0.5 * rng.random(3) * rng.random()  # few are very colourful
    size_m = float(rng.uniform(*tile_m))
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    return Material(texture=texture, tile_m=(size_m, size_m), tint=(float(tint[0]), float(tint[1]), float(tint[2])))


def _pictures(rng: np.random.Generator, low_m: Vec3, high_m: Vec3) -> list[Solid]:
    """One or two framed photographs on the long walls, at eye height."""
    solids: list[Solid] = []
    y = high_m[1] - 1.55
    for x, yaw_rad in ((high_m[0], math.pi / 2), (low_m[0], -math.pi / 2)):
        if rng.random() < 0.7:
            name = str(rng.choice(PICTURES))
            width_m = float(rng.uniform(0.6, 1.2))
            z = float(rng.uniform(0.2, 0.7) * high_m[2])
            solids += placed(picture(name, _material(rng), width_m, 0.67 * width_m), x, y, z, yaw_rad)
    return solids


def _furniture(rng: np.random.Generator, low_m: Vec3, high_m: Vec3, count: int) -> list[Solid]:
    """Things on the floor, apart from each other, the walls and the origin; the first one moves."""
    solids: list[Solid] = []
    taken = [(0.0, 0.0, CLEARANCE_M)]  # x, z, radius
    for number in range(count):
        things, radius_m = _moving_thing(rng) if number == 0 else _thing(rng)
        for _ in range(20):  # places tried before giving the thing up
            margin = radius_m + WALL_GAP_M
            if 2 * margin >= min(high_m[0] - low_m[0], high_m[2] - low_m[2]):
                break
            x = float(rng.uniform(low_m[0] + margin, high_m[0] - margin))
            z = float(rng.uniform(low_m[2] + margin, high_m[2] - margin))
            if all(math.hypot(x - other_x, z - other_z) > radius_m + other for other_x, other_z, other in taken):
                taken.append((x, z, radius_m))
                solids += placed(things, x, high_m[1], z, float(rng.uniform(0, 2 * math.pi)) if number else 0.0)
                break
    return solids


def _thing(rng: np.random.Generator) -> tuple[list[Solid], float]:
    """Something that stands still, around the origin, and the radius it needs."""
    kind = rng.choice(["block", "stack", "post", "ball", "table", "plant", "lamp"])
    size_m = float(rng.uniform(0.3, 0.8))
    height_m = float(rng.uniform(0.3, 1.6))
    if kind == "block":
        return [block(_material(rng), size_m, height_m, 0.6 * size_m)], 0.6 * size_m
    if kind == "stack":
        upper = block(_material(rng), 0.6 * size_m, 0.3, 0.5 * size_m, (0.0, -0.5 * height_m, 0.0))
        return [block(_material(rng), size_m, 0.5 * height_m, size_m), upper], 0.75 * size_m
    if kind == "post":
        return [post(_material(rng), 0.4 * size_m, height_m)], 0.4 * size_m
    if kind == "ball":
        return [
            Sphere(center_m=(0.0, -0.5 * size_m, 0.0), radius_m=0.5 * size_m, material=_material(rng))
        ], 0.5 * size_m
    if kind == "table":
        return table(_material(rng), 1.4 * size_m, size_m), 0.9 * size_m
    if kind == "plant":
        return plant(_material(rng), _material(rng)), 0.4
    return floor_lamp(_material(rng), _material(rng)), 0.2


def _moving_thing(rng: np.random.Generator) -> tuple[list[Solid], float]:
    """A ball or a box on its way, around the origin, and the radius it needs with its way."""
    radius_m, reach_m = float(rng.uniform(0.15, 0.3)), float(rng.uniform(0.2, 0.6))
    period_s = float(rng.uniform(2.0, 6.0))
    angle = float(rng.uniform(0, 2 * math.pi))
    motion: Motion = BackAndForth(
        reach_m=(reach_m * math.cos(angle), 0.0, reach_m * math.sin(angle)), period_s=period_s
    )
    needs_m = radius_m * math.sqrt(2) + reach_m
    if rng.random() < 0.5:
        motion = Circular(radius_m=0.5 * reach_m, period_s=period_s, start_rad=angle)
    center_m = (0.0, -radius_m, 0.0)
    if rng.random() < 0.5:
        return [Sphere(center_m=center_m, radius_m=radius_m, material=_material(rng), motion=motion)], needs_m
    size_m = (2 * radius_m, 2 * radius_m, 2 * radius_m)
    return [Box(center_m=center_m, size_m=size_m, material=_material(rng), motion=motion)], needs_m
