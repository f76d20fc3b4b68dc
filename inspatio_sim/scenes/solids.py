"""The maths of the solids, one class a kind, all solids of a kind at once.

Each kind answers three questions: where does a ray enter (`intersect`), what is there (`surface`), and how
far is a point (`distance`). Shapes: F frames, P solids of the kind, N rays or points; a ray is
`origin + t * direction`, entered from outside at t > 0; rays that start inside a solid do not see it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from inspatio_sim.scenes.primitives import Box, Cylinder, Plane, Solid, Sphere


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What rays found on solids of one kind. K rays."""

    normal: Tensor  # unit, out of the solid. [K, 3]
    uv: Tensor  # texture coordinates in repeats. [K, 2]
    repeats_per_m: Tensor  # texture repeats a metre, the denser direction. [K]


class Kind(ABC):
    """All solids of one kind at F times."""

    object_id: Tensor  # places in the scene's tuple of solids. [P]
    tile_m: Tensor  # [P, 2]
    center: Tensor  # not for planes. [F, P, 3]

    @abstractmethod
    def intersect(self, origin: Tensor, direction: Tensor) -> Tensor:
        """Ray parameter of entry, inf where a ray misses. [F, 3], [F, 3, N] -> [F, P, N]"""

    @abstractmethod
    def surface(self, frame: Tensor, which: Tensor, point: Tensor) -> Surface:
        """Look at surface points: frame, solid of this kind, world point. [K], [K], [K, 3]"""

    @abstractmethod
    def distance(self, point: Tensor) -> Tensor:
        """Signed distance of points at the first time. [N, 3] -> [P, N]"""

    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Centres and radii of spheres around the solids, None when unbounded. [F, P, 3], [P]"""

    def __len__(self) -> int:
        return len(self.object_id)

    def at_frames(self, frames: slice) -> Self:
        """The same solids at some of the times."""
        part = copy(self)
        if hasattr(self, "center"):
            part.center = self.center[frames]
        return part

    def only(self, places: Tensor) -> Self:
        """Some of the solids, by place in this kind. [p]"""
        part = copy(self)
        for name, value in vars(self).items():
            setattr(part, name, value[:, places] if name == "center" else value[places])
        return part


class Planes(Kind):
    def __init__(self, solids: Sequence[Plane], object_id: Tensor, time_s: Tensor) -> None:
        self.object_id = object_id
        self.tile_m = time_s.new_tensor([solid.material.tile_m for solid in solids])
        normal = time_s.new_tensor([solid.normal for solid in solids])
        self.normal = normal / normal.norm(dim=-1, keepdim=True)  # [P, 3]
        self.offset = (self.normal * time_s.new_tensor([solid.point_m for solid in solids])).sum(-1)  # [P]
        # In-plane axes as seen from the free side: v down the wall, or along z on floors and ceilings.
        down, ahead = time_s.new_tensor([0.0, 1.0, 0.0]), time_s.new_tensor([0.0, 0.0, 1.0])
        is_flat = self.normal[:, 1:2].abs() > 0.99
        hint = torch.where(is_flat, ahead, down)
        v_axis = hint - (hint * self.normal).sum(-1, keepdim=True) * self.normal
        self.v_axis = v_axis / v_axis.norm(dim=-1, keepdim=True)
        self.u_axis = torch.linalg.cross(self.normal, self.v_axis)

    def intersect(self, origin: Tensor, direction: Tensor) -> Tensor:
        n_x, n_y, n_z = (self.normal[:, axis, None] for axis in range(3))
        slope = n_x * direction[:, None, 0] + n_y * direction[:, None, 1] + n_z * direction[:, None, 2]
        height = (origin[:, None] * self.normal).sum(-1) - self.offset  # above the plane. [F, P]
        t = -height[..., None] / slope
        return torch.where((slope < 0) & (height[..., None] > 0), t, math.inf)

    def surface(self, frame: Tensor, which: Tensor, point: Tensor) -> Surface:
        u = (point * self.u_axis[which]).sum(-1)
        v = (point * self.v_axis[which]).sum(-1)
        tile_m = self.tile_m[which]
        return Surface(
            normal=self.normal[which],
            uv=torch.stack([u, v], dim=-1) / tile_m,
            repeats_per_m=1 / tile_m.amin(dim=-1),
        )

    def distance(self, point: Tensor) -> Tensor:
        return self.normal @ point.T - self.offset[:, None]

    def bounds(self) -> None:
        return None


class Boxes(Kind):
    def __init__(self, solids: Sequence[Box], object_id: Tensor, time_s: Tensor) -> None:
        self.object_id = object_id
        self.tile_m = time_s.new_tensor([solid.material.tile_m for solid in solids])
        self.center = _centers(solids, time_s)
        self.half = 0.5 * time_s.new_tensor([solid.size_m for solid in solids])  # [P, 3]
        yaw = time_s.new_tensor([solid.yaw_rad for solid in solids])
        self.cos, self.sin = torch.cos(yaw), torch.sin(yaw)  # [P]

    def _to_box(self, x: Tensor, z: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """World x and z of a vector along the box's own axes."""
        return cos * x - sin * z, sin * x + cos * z

    def intersect(self, origin: Tensor, direction: Tensor) -> Tensor:
        cos, sin = self.cos[:, None], self.sin[:, None]
        to_box = origin[:, None] - self.center  # [F, P, 3]
        from_x, from_z = self._to_box(to_box[..., 0], to_box[..., 2], self.cos, self.sin)
        along_x, along_z = self._to_box(direction[:, None, 0], direction[:, None, 2], cos, sin)
        enter, leave = _slab(from_x[..., None], along_x, self.half[:, 0, None])
        for start, along, half in (
            (to_box[..., 1:2], direction[:, None, 1], self.half[:, 1, None]),
            (from_z[..., None], along_z, self.half[:, 2, None]),
        ):
            enter_axis, leave_axis = _slab(start, along, half)
            enter, leave = torch.maximum(enter, enter_axis), torch.minimum(leave, leave_axis)
        return torch.where((enter < leave) & (enter > 0), enter, math.inf)

    def surface(self, frame: Tensor, which: Tensor, point: Tensor) -> Surface:
        offset = point - self.center[frame, which]
        cos, sin, half = self.cos[which], self.sin[which], self.half[which]
        x, z = self._to_box(offset[:, 0], offset[:, 2], cos, sin)
        local = torch.stack([x, offset[:, 1], z], dim=-1)
        face, sign = _face(local / half)
        normal = torch.zeros_like(local).scatter_(1, face[:, None], sign[:, None])
        normal = torch.stack([cos * normal[:, 0] + sin * normal[:, 2], normal[:, 1],
                              cos * normal[:, 2] - sin * normal[:, 0]], dim=-1)  # fmt: skip
        # From a corner of the face, so that a tile of the face's size fits it exactly.
        tile_m = self.tile_m[which]
        uv = (
            _face_coordinates(local, face, sign) + _face_coordinates(half, face, torch.ones_like(sign)).abs()
        ) / tile_m
        return Surface(normal=normal, uv=uv, repeats_per_m=1 / tile_m.amin(dim=-1))

    def distance(self, point: Tensor) -> Tensor:
        offset = point - self.center[0, :, None]  # [P, N, 3]
        x, z = self._to_box(offset[..., 0], offset[..., 2], self.cos[:, None], self.sin[:, None])
        outside = torch.stack([x, offset[..., 1], z], dim=-1).abs() - self.half[:, None]
        return outside.clamp(min=0).norm(dim=-1) + outside.amax(dim=-1).clamp(max=0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.center, self.half.norm(dim=-1)


class Spheres(Kind):
    def __init__(self, solids: Sequence[Sphere], object_id: Tensor, time_s: Tensor) -> None:
        self.object_id = object_id
        self.tile_m = time_s.new_tensor([solid.material.tile_m for solid in solids])
        self.center = _centers(solids, time_s)
        self.radius = time_s.new_tensor([solid.radius_m for solid in solids])

    def intersect(self, origin: Tensor, direction: Tensor) -> Tensor:
        to_origin = origin[:, None] - self.center  # [F, P, 3]
        a = direction.square().sum(dim=1)[:, None]  # [F, 1, N]
        b = sum(to_origin[..., axis, None] * direction[:, None, axis] for axis in range(3))
        c = to_origin.square().sum(-1) - self.radius.square()
        discriminant = b * b - a * c[..., None]
        t = (-b - torch.sqrt(discriminant.clamp(min=0))) / a
        return torch.where((discriminant > 0) & (t > 0), t, math.inf)

    def surface(self, frame: Tensor, which: Tensor, point: Tensor) -> Surface:
        radius = self.radius[which]
        normal = (point - self.center[frame, which]) / radius[:, None]
        normal = normal / normal.norm(dim=-1, keepdim=True)
        # The texture lies on a cube blown up into the ball: even everywhere, seams only along the cube's edges.
        face, sign = _face(normal)
        on_cube = normal / normal.abs().amax(dim=-1, keepdim=True)
        arc_m = torch.atan(_face_coordinates(on_cube, face, sign)) * radius[:, None]
        tile_m = _fit(self.tile_m[which], math.pi / 2 * radius[:, None])
        return Surface(normal=normal, uv=arc_m / tile_m, repeats_per_m=1 / tile_m.amin(dim=-1))

    def distance(self, point: Tensor) -> Tensor:
        return (point - self.center[0, :, None]).norm(dim=-1) - self.radius[:, None]

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.center, self.radius


class Cylinders(Kind):
    def __init__(self, solids: Sequence[Cylinder], object_id: Tensor, time_s: Tensor) -> None:
        self.object_id = object_id
        self.tile_m = time_s.new_tensor([solid.material.tile_m for solid in solids])
        self.center = _centers(solids, time_s)
        self.radius = time_s.new_tensor([solid.radius_m for solid in solids])
        self.half_height = 0.5 * time_s.new_tensor([solid.height_m for solid in solids])

    def intersect(self, origin: Tensor, direction: Tensor) -> Tensor:
        x, y, z = (origin[:, None] - self.center).unbind(-1)  # [F, P]
        along_x, along_y, along_z = (direction[:, None, axis] for axis in range(3))
        a = (along_x.square() + along_z.square()).clamp(min=1e-12)
        b = x[..., None] * along_x + z[..., None] * along_z
        c = x.square() + z.square() - self.radius.square()
        discriminant = b * b - a * c[..., None]
        root = torch.sqrt(discriminant.clamp(min=0))
        enter_cap, leave_cap = _slab(y[..., None], along_y, self.half_height[:, None])
        enter = torch.maximum((-b - root) / a, enter_cap)
        leave = torch.minimum((-b + root) / a, leave_cap)
        return torch.where((discriminant > 0) & (enter < leave) & (enter > 0), enter, math.inf)

    def surface(self, frame: Tensor, which: Tensor, point: Tensor) -> Surface:
        offset = point - self.center[frame, which]
        radius, half_height = self.radius[which], self.half_height[which]
        x, y, z = offset.unbind(-1)
        across = torch.hypot(x, z)
        is_cap = (y.abs() / half_height > across / radius)[:, None]
        side_normal = torch.stack([x, torch.zeros_like(y), z], dim=-1) / across.clamp(min=1e-9)[:, None]
        cap_normal = torch.stack([torch.zeros_like(x), y.sign(), torch.zeros_like(z)], dim=-1)
        around_m = torch.stack([torch.atan2(x, -z) * radius, y + half_height], dim=-1)
        tile_m = self.tile_m[which]
        fitted_m = torch.stack([_fit(tile_m[:, 0], 2 * math.pi * radius), tile_m[:, 1]], dim=-1)
        return Surface(
            normal=torch.where(is_cap, cap_normal, side_normal),
            uv=torch.where(is_cap, offset[:, 0::2] / tile_m, around_m / fitted_m),
            repeats_per_m=1 / torch.minimum(tile_m, fitted_m).amin(dim=-1),
        )

    def distance(self, point: Tensor) -> Tensor:
        x, y, z = (point - self.center[0, :, None]).unbind(-1)
        outside = torch.stack([torch.hypot(x, z) - self.radius[:, None], y.abs() - self.half_height[:, None]], dim=-1)
        return outside.clamp(min=0).norm(dim=-1) + outside.amax(dim=-1).clamp(max=0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.center, torch.hypot(self.radius, self.half_height)


KINDS: dict[type[Solid], Callable[[list[Any], Tensor, Tensor], Kind]] = {
    Plane: Planes,
    Box: Boxes,
    Sphere: Spheres,
    Cylinder: Cylinders,
}


def pack(solids: Sequence[Solid], time_s: Tensor) -> list[Kind]:
    """Sort solids by kind and put their numbers into tensors on the device of `time_s`. [F]"""
    kinds = []
    for solid_type, kind_type in KINDS.items():
        places = [place for place, solid in enumerate(solids) if isinstance(solid, solid_type)]
        if places:
            object_id = torch.tensor(places, device=time_s.device)
            kinds.append(kind_type([solids[place] for place in places], object_id, time_s))
    return kinds


def _centers(solids: Sequence[Box | Sphere | Cylinder], time_s: Tensor) -> Tensor:
    """Where the solids are at each time. [F, P, 3]"""
    centers = time_s.new_tensor([solid.center_m for solid in solids]).repeat(len(time_s), 1, 1)
    for place, solid in enumerate(solids):
        if solid.motion is not None:
            centers[:, place] += solid.motion.offset_m(time_s)
    return centers


def _slab(start: Tensor, along: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where a ray enters and leaves -half..half along one axis; NaN for a ray in the very face."""
    inverse = 1 / along
    first, second = (-half - start) * inverse, (half - start) * inverse
    return torch.minimum(first, second), torch.maximum(first, second)


def _face(cube_point: Tensor) -> tuple[Tensor, Tensor]:
    """The face of the cube [-1, 1]^3 under a point: its axis and its side (+1 or -1). [K, 3] -> [K], [K]"""
    face = cube_point.abs().argmax(dim=-1)
    side = cube_point.gather(1, face[:, None])[:, 0]
    return face, torch.where(side < 0, -1.0, 1.0)


def _face_coordinates(vector: Tensor, face: Tensor, side: Tensor) -> Tensor:
    """The vector along a face's right and down, seen from outside with y down. [K, 3] -> [K, 2]"""
    x, y, z = vector.unbind(-1)
    right = torch.where(face == 0, side * z, torch.where(face == 2, -side * x, x))
    return torch.stack([right, torch.where(face == 1, z, y)], dim=-1)


def _fit(tile_m: Tensor, length_m: Tensor) -> Tensor:
    """The tile stretched so that a whole number of tiles fills the length."""
    return length_m / (length_m / tile_m).round().clamp(min=1)
