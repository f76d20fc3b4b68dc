"""Frames with depth and pose go in; points, occupancy, floor plans, collisions and views come out.

`WorldMap` owns it all; `PlanningGrid` is its floor plan.
"""

from inspatio_sim.mapping.collision import Sweep
from inspatio_sim.mapping.config import MapConfig
from inspatio_sim.mapping.grid import PlanningGrid
from inspatio_sim.mapping.world_map import WorldMap

__all__ = ["MapConfig", "PlanningGrid", "Sweep", "WorldMap"]
