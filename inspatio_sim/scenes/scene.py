"""A scene: solids, lights, and how far it reaches; the truth about what is solid.

World axes: x right, y down (gravity), z forward; metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.motion import Vec3
from inspatio_sim.scenes.primitives import Solid, check_positive
from inspatio_sim.scenes.solids import pack
from inspatio_sim.scenes.textures import Color


@dataclass(frozen=True, kw_only=True)
class Light:
    """A point light; its brightness halves at `reach_m`."""

    position_m: Vec3
    color: Color = (0.8, 0.8, 0.8)
    reach_m: float = 4.0
    casts_shadows: bool = True

    def __post_init__(self) -> None:
        check_positive("light reach_m", (self.reach_m,))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Solids and lights. A solid's place in `solids` is its object id in the images."""

    solids: tuple[Solid, ...]
    lights: tuple[Light, ...]
    low_m: Vec3  # corners of the box in which everything of interest lies
    high_m: Vec3
    ambient: Color = (0.4, 0.4, 0.4)
    background: Color = (0.62, 0.72, 0.85)  # where no solid is hit
    far_m: float = 60.0  # nothing is seen beyond; 16-bit millimetre depth ends at 65 m

    def __post_init__(self) -> None:
        if not self.solids:
            raise InputError("scene has no solids: want at least one")

    def distance(self, points_m: Tensor, time_s: float = 0.0, *, include_moving: bool = True) -> Tensor:
        """Signed distance to the nearest surface, negative in solids: exact outside, a bound inside overlaps.

        Args:
            points_m: world points. [N, 3]
            time_s: where moving solids are.
            include_moving: False asks about the solids without a motion only.

        Returns:
            Metres. [N]
        """
        solids = [solid for solid in self.solids if include_moving or getattr(solid, "motion", None) is None]
        points_m = torch.as_tensor(points_m, dtype=torch.float32)
        if points_m.ndim != 2 or points_m.shape[1] != 3:
            raise InputError(f"points_m has shape {tuple(points_m.shape)}: want N x 3")
        time = torch.tensor([time_s], dtype=torch.float32, device=points_m.device)
        distances = [kind.distance(points_m) for kind in pack(solids, time)]
        return torch.cat(distances).amin(dim=0)

    def is_solid(self, points_m: Tensor, time_s: float = 0.0, *, include_moving: bool = True) -> Tensor:
        """Whether points lie in matter; outside a closed room everything does. [N, 3] -> [N]"""
        return self.distance(points_m, time_s, include_moving=include_moving) < 0
