"""The solids a scene is built from, with their materials.

World axes: x right, y down (gravity), z forward; metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.motion import Motion, Vec3
from inspatio_sim.scenes.textures import WHITE, Color, Drawable


@dataclass(frozen=True, kw_only=True)
class Material:
    """A texture at a size in the world."""

    texture: Drawable
    tile_m: tuple[float, float] = (1.0, 1.0)  # width and height of one repeat
    tint: Color = WHITE  # multiplies the texture

    def __post_init__(self) -> None:
        check_positive("tile_m", self.tile_m)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The solid half-space behind a plane; `normal` points out of the solid."""

    point_m: Vec3
    normal: Vec3
    material: Material

    def __post_init__(self) -> None:
        if not math.hypot(*self.normal) > 1e-6:
            raise InputError(f"plane normal {self.normal}: want a direction")


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box, turned about the vertical: `yaw_rad` turns its z axis towards its x axis."""

    center_m: Vec3
    size_m: Vec3
    material: Material
    yaw_rad: float = 0.0
    motion: Motion | None = None

    def __post_init__(self) -> None:
        check_positive("box size_m", self.size_m)


@dataclass(frozen=True, kw_only=True)
class Sphere:
    center_m: Vec3
    radius_m: float
    material: Material
    motion: Motion | None = None

    def __post_init__(self) -> None:
        check_positive("sphere radius_m", (self.radius_m,))


@dataclass(frozen=True, kw_only=True)
class Cylinder:
    """An upright cylinder with flat ends."""

    center_m: Vec3
    radius_m: float
    height_m: float
    material: Material
    motion: Motion | None = None

    def __post_init__(self) -> None:
        check_positive("cylinder radius_m and height_m", (self.radius_m, self.height_m))


Solid = Plane | Box | Sphere | Cylinder


def check_positive(name: str, values: tuple[float, ...]) -> None:
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise InputError(f"{name}={values}: want positive numbers")
