"""Measures of an episode: path length, collisions, area seen and explored.

Every measure has a twin `..._observed` that counts only what the clip itself shows. A position is observed where
the floor plan of the clip's map knows the cell below it; a pixel is observed where `known` is not 0.
"""

from __future__ import annotations

import numpy as np

from inspatio_envs.coverage import Coverage
from inspatio_envs.episodes import EpisodeSampler
from inspatio_envs.shared import Place
from inspatio_sim.condition.observation import Observation
from inspatio_sim.mapping.grid import UNKNOWN, ros_from_world
from inspatio_sim.motion.camera import Array


def is_observed(place: Place, position_m: Array) -> bool:
    """Whether the clip shows the floor-plan cell at a position. [3]"""
    grid = place.grid
    row, column = (int(i) for i in grid.cell_of(ros_from_world(position_m)))
    if not (0 <= row < grid.cells.shape[0] and 0 <= column < grid.cells.shape[1]):
        return False
    return bool(grid.cells[row, column] != UNKNOWN)


class Walk:
    """Measures since the episode began."""

    def __init__(self, place: Place, observation: Observation) -> None:
        self.position_m = observation.T_world_camera[-1, :3, 3].copy()
        self.is_observed = is_observed(place, self.position_m)
        self.was_always_observed = self.is_observed
        self.path_length_m = [0.0, 0.0]  # total, on observed ground
        self.num_collisions = [0, 0]
        self.coverage = Coverage()
        self._see(place, observation)

    def watch(self, place: Place, observation: Observation) -> None:
        """Count one block of the world."""
        for T_world_camera in observation.T_world_camera:
            position_m = T_world_camera[:3, 3]
            length_m = float(np.linalg.norm(position_m - self.position_m))
            if length_m > 0:
                self.is_observed = is_observed(place, position_m)
                self.was_always_observed &= self.is_observed
            self.path_length_m[0] += length_m
            self.path_length_m[1] += self.is_observed * length_m
            self.position_m = position_m.copy()
        self.num_collisions[0] += observation.has_collided
        self.num_collisions[1] += observation.has_collided and self.is_observed
        self._see(place, observation)

    def measures(self) -> dict[str, float]:
        """Path length, collisions and coverage so far."""
        return {
            "path_length_m": self.path_length_m[0],
            "path_length_m_observed": self.path_length_m[1],
            "num_collisions": float(self.num_collisions[0]),
            "num_collisions_observed": float(self.num_collisions[1]),
            "coverage_m2": self.coverage.area_m2,
            "coverage_m2_observed": self.coverage.observed_m2,
        }

    def _see(self, place: Place, observation: Observation) -> None:
        intrinsics, T_world_camera = place.reference.intrinsics, observation.T_world_camera[-1]
        self.coverage.add(observation.depth_m[-1], observation.known[-1], intrinsics, T_world_camera)


class Ground:
    """The open cells of a sampler's floor plan that the camera has come near, by straight distance in the plane."""

    def __init__(self, sampler: EpisodeSampler, near_m: float) -> None:
        self.near_m = near_m
        self.is_explored = np.zeros((2, *sampler.is_open.shape), np.bool_)  # [0]: at all; [1]: from observed ground
        self.num_open = int(sampler.is_open.sum())
        self.cell_m2 = sampler.grid.resolution_m**2

    def visit(self, sampler: EpisodeSampler, position_m: Array, *, is_observed: bool) -> None:
        """Count the cells near a position. [3]"""
        grid, point_ros_m = sampler.grid, ros_from_world(position_m)
        num_around = int(np.ceil(self.near_m / grid.resolution_m))
        cell = grid.cell_of(point_ros_m)
        low, high = np.maximum(cell - num_around, 0), np.minimum(cell + num_around + 1, sampler.is_open.shape)
        if (low >= high).any():
            return
        rows, columns = (np.arange(*ends) for ends in zip(low, high, strict=True))
        centres = grid.centre_of(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))
        around = np.ix_(rows, columns)
        is_near = (np.linalg.norm(centres - point_ros_m, axis=-1) <= self.near_m) & sampler.is_open[around]
        for layer in range(1 + is_observed):
            self.is_explored[layer][around] |= is_near

    @property
    def explored_m2(self) -> float:
        return float(self.is_explored[0].sum()) * self.cell_m2

    @property
    def explored_share(self) -> tuple[float, float]:
        """Explored share of all open cells: at all, and from observed ground."""
        in_all, observed = self.is_explored.sum(axis=(1, 2)) / self.num_open
        return float(in_all), float(observed)
