"""Made-up places to film: rooms, corridors and open floors with furniture, things that move, and lamps.

The floor is y = 0 and y points down: what stands on it has negative y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from inspatio_sim.motion.camera import Array
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
from inspatio_sim.scenes.motion import BackAndForth, Circular, Motion, Vec3
from inspatio_sim.scenes.primitives import Box, Plane, Solid, Sphere
from inspatio_sim.scenes.scene import Light, Scene
from inspatio_sim.scenes.textures import PICTURES, Color
from inspatio_sim.training.data.procedural_styles import Finish, Palette

Layout = Literal["room", "corridor", "open"]
LAYOUT_SHARES = (0.6, 0.2, 0.2)
THINGS = ("box", "stack of boxes", "post", "ball", "table", "plant", "lamp", "shelf", "sofa")
WALL_GAP_M = 0.05
LONELY_M = 0.35  # between things, so that there are ways through
PLACES_TRIED = 20


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something on the floor, with all the room its motion needs."""

    name: str
    color: str
    motion: str  # "" = it stands still
    x_m: float
    z_m: float
    radius_m: float
    height_m: float
    object_ids: range  # its solids in the scene


@dataclass(frozen=True, kw_only=True)
class Place:
    """A scene and what is in it, in words."""

    scene: Scene
    layout: Layout
    walls: str  # "" on an open floor
    floor: str
    things: tuple[Thing, ...]

    def clearance_m(self, points_m: Array) -> Array:
        """Distance to matter that stands still, and to the room that moving things need at any time. [N, 3] -> [N]"""
        clearance_m = self.scene.distance(torch.from_numpy(points_m), include_moving=False).double().numpy()
        for thing in self.things:
            if thing.motion:
                aside_m = np.hypot(points_m[:, 0] - thing.x_m, points_m[:, 2] - thing.z_m) - thing.radius_m
                clearance_m = np.minimum(clearance_m, np.maximum(aside_m, -points_m[:, 1] - thing.height_m))
        return clearance_m


def make_place(rng: np.random.Generator, palette: Palette) -> Place:
    """Draw a place."""
    layout: Layout = get_args(Layout)[int(rng.choice(3, p=LAYOUT_SHARES))]
    low_m, high_m = _extent(rng, layout)
    floor = palette.draw(rng, "floor")
    walls = [palette.draw(rng, "wall") for _ in range(2)]
    solids: list[Solid] = []
    if layout == "open":
        solids.append(Plane(point_m=(0, 0, 0), normal=(0.0, -1.0, 0.0), material=floor.material))
    else:
        ceiling = palette.draw(rng, "wall")
        panes = [walls[i].material for i in rng.permutation([0, 0, 0, 1])]  # the caption names the first
        solids += room_walls(low_m, high_m, floor.material, ceiling.material, panes)
        solids += _pictures(rng, palette, low_m, high_m)
    count = {"room": rng.integers(4, 10), "corridor": rng.integers(3, 7), "open": rng.integers(6, 12)}[layout]
    things = _fill(rng, palette, low_m, high_m, int(count), num_moving=int(rng.integers(1, 4)), solids=solids)
    lights, ambient = _lamps(rng, layout, low_m, high_m)
    sky = float(rng.uniform(0.6, 0.95))
    scene = Scene(
        solids=tuple(solids),
        lights=lights,
        low_m=low_m,
        high_m=high_m,
        ambient=ambient,
        background=(sky * float(rng.uniform(0.6, 1.0)), sky * 0.95, sky),
    )
    return Place(
        scene=scene,
        layout=layout,
        walls="" if layout == "open" else _words(walls[0]),
        floor=_words(floor),
        things=tuple(things),
    )


def _words(finish: Finish) -> str:
    return f"{finish.color} {finish.pattern}"


def _extent(rng: np.random.Generator, layout: Layout) -> tuple[Vec3, Vec3]:
    width_m, length_m = {"room": (5.2, 6.2), "corridor": (2.4, 10.0), "open": (11.0, 11.0)}[layout]
    width_m, length_m = width_m * rng.uniform(0.8, 1.4), length_m * rng.uniform(0.8, 1.4)
    return (-width_m / 2, -float(rng.uniform(2.3, 3.2)), -length_m / 2), (width_m / 2, 0.0, length_m / 2)


def _pictures(rng: np.random.Generator, palette: Palette, low_m: Vec3, high_m: Vec3) -> list[Solid]:
    """Framed photographs on some of the walls, at eye height."""
    solids: list[Solid] = []
    walls = (  # x and z of the wall's middle, the direction along it, and the yaw of a picture on it
        (0.0, high_m[2], (1.0, 0.0), 0.0),
        (high_m[0], 0.0, (0.0, 1.0), math.pi / 2),
        (0.0, low_m[2], (1.0, 0.0), math.pi),
        (low_m[0], 0.0, (0.0, 1.0), -math.pi / 2),
    )
    for x_m, z_m, (along_x, along_z), yaw_rad in walls:
        width_m, aside = float(rng.uniform(0.5, 1.1)), float(rng.uniform(-0.3, 0.3))
        height_m = width_m * float(rng.uniform(0.65, 1.0))
        name, frame = str(rng.choice(PICTURES)), palette.draw(rng, "thing").material
        if rng.random() < 0.5:
            at_x_m = x_m + aside * along_x * (high_m[0] - low_m[0])
            at_z_m = z_m + aside * along_z * (high_m[2] - low_m[2])
            solids += placed(picture(name, frame, width_m, height_m), at_x_m, -1.5, at_z_m, yaw_rad)
    return solids


def _lamps(rng: np.random.Generator, layout: Layout, low_m: Vec3, high_m: Vec3) -> tuple[tuple[Light, ...], Color]:
    """One or two lamps that cast shadows, and the light from everywhere that keeps the shadows from going black."""
    ambient = float(rng.uniform(0.42, 0.62))
    warmth = rng.uniform(-0.06, 0.06)
    hue = np.array([1 + warmth, 1.0, 1 - warmth])
    if layout == "open":
        angle, height_m = rng.uniform(0, 2 * math.pi), rng.uniform(7, 11)
        position_m = (float(8 * math.cos(angle)), float(-height_m), float(8 * math.sin(angle)))
        color = float(rng.uniform(0.8, 1.1)) * hue
        return (Light(position_m=position_m, color=_color(color), reach_m=14.0),), _color(ambient * hue)
    num_lamps = int(rng.integers(1, 3))
    lamps = []
    for number in range(num_lamps):
        z_share = float(rng.uniform(-0.3, 0.3)) if num_lamps == 1 else (-0.3, 0.3)[number]
        position_m = (
            float(rng.uniform(-0.25, 0.25)) * (high_m[0] - low_m[0]),
            low_m[1] + float(rng.uniform(0.15, 0.5)),
            z_share * (high_m[2] - low_m[2]),
        )
        brightness = float(rng.uniform(0.7, 1.05)) / (1 if num_lamps == 1 else 1.5)
        lamps.append(Light(position_m=position_m, color=_color(brightness * hue), reach_m=4.0))
    return tuple(lamps), _color(ambient * hue)


def _color(values: Array) -> Color:
    return float(values[0]), float(values[1]), float(values[2])


def _fill(
    rng: np.random.Generator,
    palette: Palette,
    low_m: Vec3,
    high_m: Vec3,
    count: int,
    num_moving: int,
    solids: list[Solid],
) -> list[Thing]:
    """Put things on the floor, apart from each other and the walls; the first ones move. Adds to `solids`."""
    things: list[Thing] = []
    for number in range(count):
        made = _mover(rng, palette) if number < num_moving else _furniture(rng, palette)
        name, color, motion, parts, radius_m, height_m = made
        margin_m = radius_m + WALL_GAP_M
        for _ in range(PLACES_TRIED):
            if 2 * margin_m >= min(high_m[0] - low_m[0], high_m[2] - low_m[2]):
                break
            x_m = float(rng.uniform(low_m[0] + margin_m, high_m[0] - margin_m))
            z_m = float(rng.uniform(low_m[2] + margin_m, high_m[2] - margin_m))
            if all(math.hypot(x_m - t.x_m, z_m - t.z_m) > radius_m + t.radius_m + LONELY_M for t in things):
                yaw_rad = 0.0 if motion else float(rng.uniform(0, 2 * math.pi))
                ids = range(len(solids), len(solids) + len(parts))
                solids += placed(parts, x_m, 0.0, z_m, yaw_rad)
                things.append(
                    Thing(name=name, color=color, motion=motion, x_m=x_m, z_m=z_m,
                          radius_m=radius_m, height_m=height_m, object_ids=ids)
                )  # fmt: skip
                break
    return things


Made = tuple[str, str, str, list[Solid], float, float]  # name, colour, motion, solids, radius and height it needs


def _furniture(rng: np.random.Generator, palette: Palette) -> Made:
    """Something that stands still, around the origin."""
    first, second = palette.draw(rng, "thing"), palette.draw(rng, "thing")
    a, b = first.material, second.material
    name = THINGS[int(rng.integers(len(THINGS)))]
    size_m, height_m = float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.3, 1.6))
    parts: list[Solid]
    if name == "box":
        parts = [block(a, size_m, height_m, 0.7 * size_m)]
        radius_m = 0.62 * size_m
    elif name == "stack of boxes":
        upper = block(b, 0.6 * size_m, 0.35 * height_m, 0.5 * size_m, (0.0, -0.5 * height_m, 0.0))
        parts = [block(a, size_m, 0.5 * height_m, size_m), upper]
        radius_m = 0.71 * size_m
    elif name == "post":
        parts = [post(a, 0.35 * size_m, height_m)]
        radius_m = 0.35 * size_m
    elif name == "ball":
        height_m, radius_m = size_m, 0.5 * size_m
        parts = [Sphere(center_m=(0.0, -radius_m, 0.0), radius_m=radius_m, material=a)]
    elif name == "table":
        width_m, depth_m, height_m = 1.7 * size_m, size_m, float(rng.uniform(0.5, 0.8))
        vase_m = float(rng.uniform(0.1, 0.35))
        parts = [*table(a, width_m, depth_m, height_m), post(b, 0.3 * vase_m, vase_m, (0.0, -height_m, 0.0))]
        radius_m, height_m = 0.5 * math.hypot(width_m, depth_m), height_m + vase_m
    elif name == "plant":
        parts, radius_m, height_m = plant(a, b), 0.4, 1.2
    elif name == "lamp":
        parts, radius_m, height_m = floor_lamp(a, b), 0.2, 1.65
    elif name == "shelf":
        width_m, height_m = float(rng.uniform(0.8, 1.3)), float(rng.uniform(1.2, 2.0))
        parts, radius_m = shelf(a, [b, a, b, b, a], width_m, height_m), 0.5 * math.hypot(width_m, 0.32)
    else:
        width_m = float(rng.uniform(1.2, 1.8))
        parts, radius_m, height_m = sofa(a, width_m), 0.5 * math.hypot(width_m, 0.8), 0.85
    return name, first.color, "", parts, radius_m, height_m


def _mover(rng: np.random.Generator, palette: Palette) -> Made:
    """A ball, a box or a post on its way; to and fro, in circles, or bouncing."""
    finish = palette.draw(rng, "thing")
    radius_m, reach_m = float(rng.uniform(0.14, 0.32)), float(rng.uniform(0.3, 0.9))
    period_s, angle = float(rng.uniform(2.0, 5.0)), float(rng.uniform(0, 2 * math.pi))
    jump_m, kind = float(rng.uniform(0.2, 0.6)), int(rng.integers(3))
    motion: Motion
    if kind == 0:
        motion = BackAndForth(reach_m=(reach_m * math.cos(angle), 0.0, reach_m * math.sin(angle)), period_s=period_s)
        word, far_m = "moves to and fro", reach_m
    elif kind == 1:
        motion = Circular(radius_m=0.5 * reach_m, period_s=1.3 * period_s, start_rad=angle)
        word, far_m = "moves in a circle", reach_m
    else:
        motion = BackAndForth(reach_m=(0.0, -jump_m, 0.0), period_s=0.6 * period_s)
        word, far_m = "moves up and down", 0.0
    height_m = 2 * radius_m
    shape = int(rng.integers(3))
    name = ("ball", "box", "post")[shape]
    center_m = (0.0, -radius_m, 0.0)
    part: Solid
    if shape == 0:
        part = Sphere(center_m=center_m, radius_m=radius_m, material=finish.material, motion=motion)
    elif shape == 1:
        size_m = (height_m, height_m, height_m)
        part = Box(center_m=center_m, size_m=size_m, material=finish.material, yaw_rad=angle, motion=motion)
    else:
        height_m = float(rng.uniform(0.6, 1.4))
        standing = post(finish.material, 0.6 * radius_m, height_m)
        part = type(standing)(center_m=standing.center_m, radius_m=standing.radius_m, height_m=height_m,
                              material=finish.material, motion=motion)  # fmt: skip
    needs_m = math.sqrt(2) * radius_m + far_m
    return name, finish.color, word, [part], needs_m, height_m + (jump_m if kind == 2 else 0.0)
