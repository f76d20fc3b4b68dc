"""The furnished room of the demo clip.

The world origin is where the camera starts: in free space, level, looking along +z.
"""

from __future__ import annotations

import math

from inspatio_sim.scenes.furniture import (
    block,
    floor_lamp,
    picture,
    placed,
    plant,
    post,
    room_walls,
    shelf,
    sofa,
    table,
)
from inspatio_sim.scenes.motion import BackAndForth, Vec3
from inspatio_sim.scenes.primitives import Material, Solid, Sphere
from inspatio_sim.scenes.scene import Light, Scene
from inspatio_sim.scenes.textures import Color, Texture

CAMERA_HEIGHT_M = 1.35
LOW_M: Vec3 = (-2.5, CAMERA_HEIGHT_M - 2.6, -2.0)  # of the demo room: 5 x 6 m, 2.6 m high
HIGH_M: Vec3 = (2.5, CAMERA_HEIGHT_M, 4.0)


def demo_room(seed: int = 0) -> Scene:
    """A living room with a ball that rolls back and forth; the seed changes textures, not places."""

    def paint(pattern: str, a: Color, b: Color, tile_m: float | tuple[float, float]) -> Material:
        size = tile_m if isinstance(tile_m, tuple) else (tile_m, tile_m)
        return Material(texture=Texture(pattern=pattern, color_a=a, color_b=b, seed=seed), tile_m=size)

    parquet = paint("planks", (0.78, 0.56, 0.36), (0.45, 0.28, 0.15), 2.0)
    ceiling = paint("plaster", (1.0, 0.98, 0.94), (0.72, 0.7, 0.68), 2.0)
    bricks = paint("bricks", (0.78, 0.42, 0.32), (0.72, 0.64, 0.58), (1.8, 1.2))
    paper = paint("wallpaper", (0.86, 0.88, 0.78), (0.45, 0.58, 0.55), 1.6)
    plaster = paint("plaster", (0.95, 0.86, 0.68), (0.62, 0.52, 0.42), 2.4)
    oak = paint("wood", (0.72, 0.5, 0.3), (0.5, 0.31, 0.17), (1.2, 0.6))
    walnut = paint("wood", (0.5, 0.34, 0.23), (0.32, 0.2, 0.13), (1.2, 0.6))
    cloth = paint("weave", (0.25, 0.42, 0.6), (0.5, 0.66, 0.8), 0.8)
    brass = paint("plaster", (0.85, 0.7, 0.4), (0.55, 0.42, 0.2), 0.5)
    shade = paint("weave", (1.0, 0.95, 0.8), (0.9, 0.78, 0.55), 0.6)
    clay = paint("plaster", (0.8, 0.45, 0.3), (0.55, 0.3, 0.2), 0.5)
    leaves = paint("grass", (0.2, 0.4, 0.15), (0.45, 0.65, 0.3), 0.8)
    stone = paint("tiles", (0.75, 0.78, 0.8), (0.5, 0.53, 0.58), 0.8)
    red = paint("plaster", (0.75, 0.25, 0.2), (0.5, 0.12, 0.12), 0.4)
    green = paint("plaster", (0.3, 0.55, 0.35), (0.15, 0.35, 0.25), 0.4)
    blue = paint("plaster", (0.25, 0.4, 0.7), (0.15, 0.25, 0.5), 0.4)
    rug = paint("rug", (0.72, 0.28, 0.25), (0.9, 0.8, 0.6), (2.0, 1.4))
    beach_ball = paint("checker", (0.95, 0.5, 0.1), (0.98, 0.95, 0.88), 0.6)

    floor_y = HIGH_M[1]
    left, right, behind, ahead = LOW_M[0], HIGH_M[0], LOW_M[2], HIGH_M[2]
    east, south, west = math.pi / 2, math.pi, -math.pi / 2  # yaw of things on the walls right, behind, left
    ball = Sphere(
        center_m=(-1.0, floor_y - 0.265, 2.75),
        radius_m=0.25,
        material=beach_ball,
        motion=BackAndForth(reach_m=(1.3, 0.0, 0.2), period_s=4.0),
    )
    solids: list[Solid] = [
        *room_walls(LOW_M, HIGH_M, parquet, ceiling, [bricks, paper, plaster, paper]),
        *placed([block(rug, 2.0, 0.015, 1.4)], -0.35, floor_y, 2.8),
        *placed(table(oak), 1.3, floor_y, 2.6, 0.35),
        *placed([post(clay, 0.07, 0.28)], 1.55, floor_y - 0.74, 2.5),
        *placed(
            [block(blue, 0.3, 0.09, 0.22), block(red, 0.26, 0.07, 0.2, (0.01, -0.09, 0.0))],
            1.05,
            floor_y - 0.74,
            2.65,
            0.7,
        ),  # fmt: skip
        *placed(shelf(walnut, [red, blue, green, clay, green, red, blue]), left + 0.17, floor_y, 1.5, west),
        *placed(floor_lamp(brass, shade), right - 0.4, floor_y, ahead - 0.4),
        *placed(plant(clay, leaves), left + 0.5, floor_y, ahead - 0.5),
        *placed([post(stone, 0.19, 2.6)], -0.9, floor_y, ahead - 0.35),
        *placed(sofa(cloth), right - 0.42, floor_y, 0.4, east),
        *placed([block(walnut, 1.6, 0.75, 0.45)], -0.6, floor_y, behind + 0.23, south),
        *placed(
            [Sphere(center_m=(0.0, -0.18, 0.0), radius_m=0.18, material=stone)], -0.2, floor_y - 0.75, behind + 0.25
        ),
        *placed(
            [block(oak, 0.55, 0.5, 0.55), block(green, 0.35, 0.3, 0.35, (0.05, -0.5, 0.0))],
            1.7,
            floor_y,
            behind + 0.5,
            0.4,
        ),  # fmt: skip
        *placed(picture("coffee", walnut, 0.9, 0.6), 0.25, floor_y - 1.6, ahead),
        *placed(picture("chelsea", oak, 0.84, 0.56), 1.4, floor_y - 1.6, ahead),
        *placed(picture("astronaut", oak, 0.75, 0.75), right, floor_y - 1.5, 0.9, east),
        *placed(picture("rocket", walnut, 0.9, 0.6), left, floor_y - 1.6, -0.6, west),
        *placed(picture("chelsea", walnut, 1.05, 0.7), -0.8, floor_y - 1.7, behind, south),
        ball,
    ]
    return Scene(
        solids=tuple(solids),
        lights=(
            Light(position_m=(-0.3, LOW_M[1] + 0.5, 0.6), color=(0.72, 0.68, 0.6), reach_m=3.5),
            Light(position_m=(1.2, LOW_M[1] + 0.5, -1.0), color=(0.22, 0.24, 0.28), reach_m=3.5, casts_shadows=False),
        ),
        low_m=LOW_M,
        high_m=HIGH_M,
        ambient=(0.5, 0.5, 0.52),
    )
