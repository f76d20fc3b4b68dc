"""Observation: the result of one step of a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.motion.camera import Array
from inspatio_sim.provenance import Known

if TYPE_CHECKING:
    from inspatio_sim.mapping.world_map import WorldMap


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """Wall time of the stages of a step; of the whole batch if several worlds stepped together."""

    plan_s: float  # collisions, poses, clock
    condition_s: float  # rendering reference and map into the next views
    generate_s: float
    observe_s: float  # depth for every pixel; the generator's memory
    map_s: float = 0.0  # inserting new pixels into the map
    generator: Mapping[str, float] = field(default_factory=dict)  # the generator's own stages, seconds

    @property
    def total_s(self) -> float:
        return self.action_to_pixels_s + self.observe_s + self.map_s

    @property
    def action_to_pixels_s(self) -> float:
        """Time from the call until its frames are ready."""
        return self.plan_s + self.condition_s + self.generate_s


@dataclass(frozen=True, kw_only=True)
class Observation:
    """F frames from the agent's camera, with the provenance of each pixel."""

    rgb_u8: NDArray[np.uint8]  # [F, H, W, 3]
    depth_m: NDArray[np.float32]  # z-depth; measured where known > 0, made up elsewhere. [F, H, W]
    known: NDArray[np.uint8]  # 0 generated (now or earlier), 1 from the map, 2 from the reference. [F, H, W]
    render_u8: NDArray[np.uint8]  # what geometry alone shows, black elsewhere. [F, H, W, 3]
    is_rendered: NDArray[np.bool_]  # where geometry shows something, filmed or made up earlier. [F, H, W]
    T_world_camera: Array  # [F, 4, 4]
    time_s: Array  # since reset. [F]
    reference_frame_idx: NDArray[np.int64]  # the reference frame shown with each frame. [F]
    has_collided: bool  # the motion was cut short by an obstacle
    map: WorldMap  # not a copy: it keeps growing
    timing: StepTiming | None = field(default=None, compare=False)  # set in what a world returns

    @property
    def hallucinated_fraction(self) -> float:
        """Share of pixels that the reference has never shown."""
        return float(np.mean(self.known == Known.MADE_UP))

    def with_map_time(self, map_s: float) -> Observation:
        """A copy with the time that the map took."""
        assert self.timing is not None, "the loop timed the other stages"
        return replace(self, timing=replace(self.timing, map_s=map_s))
