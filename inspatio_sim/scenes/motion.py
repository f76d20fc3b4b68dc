"""How solids move: an offset from their place, as a function of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.errors import InputError

Vec3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Straight on for ever."""

    velocity_mps: Vec3

    def offset_m(self, time_s: Tensor) -> Tensor:
        """Offset at each time. [F] -> [F, 3]"""
        return time_s[:, None] * time_s.new_tensor(self.velocity_mps)


@dataclass(frozen=True, kw_only=True)
class Circular:
    """Round a vertical axis, starting at the solid's own place (offset 0 at time 0)."""

    radius_m: float
    period_s: float
    start_rad: float = 0.0  # direction from the axis to the start, 0 = +x, towards +z

    def __post_init__(self) -> None:
        _check_period(self.period_s)

    def offset_m(self, time_s: Tensor) -> Tensor:
        """Offset at each time. [F] -> [F, 3]"""
        angle = self.start_rad + time_s * (2 * math.pi / self.period_s)
        x = torch.cos(angle) - math.cos(self.start_rad)
        z = torch.sin(angle) - math.sin(self.start_rad)
        return self.radius_m * torch.stack([x, torch.zeros_like(x), z], dim=-1)


@dataclass(frozen=True, kw_only=True)
class BackAndForth:
    """From the solid's own place to `place + reach_m` and back, slowing down smoothly at both ends."""

    reach_m: Vec3
    period_s: float

    def __post_init__(self) -> None:
        _check_period(self.period_s)

    def offset_m(self, time_s: Tensor) -> Tensor:
        """Offset at each time. [F] -> [F, 3]"""
        share = 0.5 - 0.5 * torch.cos(time_s * (2 * math.pi / self.period_s))
        return share[:, None] * time_s.new_tensor(self.reach_m)


Motion = Linear | Circular | BackAndForth


def _check_period(period_s: float) -> None:
    if not (math.isfinite(period_s) and period_s > 0):
        raise InputError(f"period_s={period_s}: want a positive number of seconds")
