"""Episodes: start and goal of an agent, in the free space that a clip shows.

All frames of a clip make one map; episodes are drawn from its floor plan at the height of the camera. Start and
goal are free, seen and connected, and the agent's body touches nothing there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt, label

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.mapping import MapConfig, PlanningGrid, WorldMap
from inspatio_sim.mapping.geodesic import geodesic_distance
from inspatio_sim.mapping.grid import FREE, OCCUPIED, ros_from_world
from inspatio_sim.motion.camera import Array, check_pose, pose_from
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.remember import insert_reference

Difficulty = Literal["easy", "medium", "hard"]
StartHeading = Literal["seen", "any"]
Matrix = tuple[tuple[float, ...], ...]

FORMAT, VERSION = "inspatio_episodes", 1
NUM_FIELDS_KEPT = 64  # distance fields of the most recent goals
TOUCHING_M = 1e-9  # a body exactly as wide as a gap fits


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One navigation task, in the world frame (x right, y down, z forward), metres."""

    episode_id: str
    T_world_start: Matrix  # camera at the start, level, see `EpisodeConfig.start_heading`. [4, 4]
    goal_m: tuple[float, float, float]
    T_world_goal: Matrix  # camera at the goal, level, with the heading of a frame of the clip. [4, 4]
    geodesic_m: float  # shortest collision-free path from start to goal
    difficulty: Difficulty

    def __post_init__(self) -> None:
        if not isinstance(self.episode_id, str) or not self.episode_id:
            raise InputError(f"episode_id is {self.episode_id!r}: want a non-empty string")
        for name in ("T_world_start", "T_world_goal"):
            check_pose(_tuples(getattr(self, name), (4, 4), name), name)
        _tuples(self.goal_m, (3,), "goal_m")
        if not _tuples(self.geodesic_m, (), "geodesic_m") >= 0:
            raise InputError(f"geodesic_m is {self.geodesic_m}: want 0 or more")
        if self.difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty is {self.difficulty!r}: want one of {', '.join(get_args(Difficulty))}")


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """How episodes are drawn.

    The bands of difficulty are for large places. If the longest path is shorter than the last edge, all edges
    shrink by the same factor.
    """

    edges_m: tuple[float, float, float, float] = (1.5, 3.0, 6.0, 10.0)  # limits of geodesic_m for easy, medium, hard
    min_reach_m: float = 1.5  # a place whose longest path is shorter is too small
    min_clearance_m: float = 0.05  # between body and obstacles, at start and goal
    start_heading: StartHeading = "seen"  # heading of a frame of the clip, or any (mostly unseen)
    camera_height_m: float | None = None  # above the floor; None: the median height of the clip's camera
    attempts: int = 100  # goals tried per episode

    def __post_init__(self) -> None:
        edges_m = self.edges_m
        is_list = isinstance(edges_m, (tuple, list)) and len(edges_m) == 4 and all(map(_is_number, edges_m))
        if not is_list or not all(low < high for low, high in zip((0, *edges_m), edges_m, strict=False)):
            raise InputError(f"edges_m={edges_m}: want four positive, rising numbers")
        object.__setattr__(self, "edges_m", tuple(edges_m))
        if not (_is_number(self.min_reach_m) and self.min_reach_m > 0):
            raise InputError(f"min_reach_m={self.min_reach_m!r}: want a positive number")
        if not (_is_number(self.min_clearance_m) and self.min_clearance_m >= 0):
            raise InputError(f"min_clearance_m={self.min_clearance_m!r}: want 0 or more")
        if self.start_heading not in get_args(StartHeading):
            raise InputError(f"start_heading={self.start_heading!r}: want {' or '.join(get_args(StartHeading))}")
        height_m = self.camera_height_m
        if height_m is not None and not (_is_number(height_m) and height_m > 0):
            raise InputError(f"camera_height_m={height_m!r}: want a positive number, or None")
        if type(self.attempts) is not int or self.attempts < 1:
            raise InputError(f"attempts={self.attempts}: want a whole number of at least 1")


def reference_map(reference: Reference, config: MapConfig) -> WorldMap:
    """A map of everything that a clip shows."""
    world_map = WorldMap(config)
    for frame_idx in range(reference.num_frames):
        insert_reference(world_map, reference, frame_idx, frame_idx / reference.fps)
    return world_map


class EpisodeSampler:
    """Draws episodes from one place and measures paths through it.

    The body is a sphere around the camera that moves level, at one height; things above or below it are not
    obstacles. `is_open` is the largest connected region that the clip's camera was in or next to, where that
    sphere touches nothing and its centre was seen to be free.
    """

    def __init__(
        self,
        reference: Reference,
        world_map: WorldMap,
        config: EpisodeConfig | None = None,
        *,
        body_radius_m: float,
    ) -> None:
        """Plan the place.

        Args:
            reference: the clip, for its cameras.
            world_map: the map of the clip, see `reference_map`.
            config: how episodes are drawn.
            body_radius_m: radius of the sphere around the camera.

        Raises:
            InputError: the place is too small for any episode.
        """
        if not (math.isfinite(body_radius_m) and body_radius_m > 0):
            raise InputError(f"body_radius_m={body_radius_m}: want a positive number")
        self.config = config or EpisodeConfig()
        self.body_radius_m = float(body_radius_m)
        self.camera_y_m = _camera_y(reference, world_map, self.config)  # world y, down
        self._headings_rad = np.arctan2(reference.T_world_camera[:, 0, 2], reference.T_world_camera[:, 2, 2])
        cell_m = world_map.config.occupancy_voxel_m
        band_m = self.body_radius_m + cell_m / 2  # half height of the band of cell centres
        self.grid: PlanningGrid = world_map.planning_grid(
            floor_y_m=self.camera_y_m + band_m, step_height_m=0, robot_height_m=2 * band_m
        )
        clearance_m = _clearance(self.grid)
        is_clear = (self.grid.cells == FREE) & (clearance_m >= self.body_radius_m - TOUCHING_M)
        row, column = np.nonzero(is_clear)
        is_clear[row, column] = world_map.occupancy_at(self._world_of(np.stack([row, column], axis=-1))) < 0
        path_cells = self.grid.cell_of(ros_from_world(reference.T_world_camera[:, :3, 3]))
        self.is_open = _region_around(is_clear, path_cells)  # [rows, columns]
        is_spot = self.is_open & (clearance_m >= self.body_radius_m + self.config.min_clearance_m - TOUCHING_M)
        self._spots = np.argwhere(is_spot)  # where episodes start and end. [N, 2]
        self._fields: OrderedDict[tuple[int, int], NDArray[np.float64]] = OrderedDict()
        self.reach_m = self._longest_way_m()
        if self.reach_m < self.config.min_reach_m:
            height_m = self.config.camera_height_m
            raise InputError(
                f"the map is too small for episodes: the longest path for a body of radius {self.body_radius_m:g} m "
                f"through seen, free space {'' if height_m is None else f'{height_m:g} m above the floor '}is "
                f"{self.reach_m:.2f} m, want at least {self.config.min_reach_m:g} m; take a clip that shows more free "
                f"space, {'' if height_m is None else 'another camera_height_m, '}a smaller body_radius_m or a smaller "
                "min_reach_m"
            )
        edges_m = np.array(self.config.edges_m) * min(1.0, self.reach_m / self.config.edges_m[-1])
        self.bands_m: dict[Difficulty, tuple[float, float]] = {
            name: (float(low), float(high))
            for name, low, high in zip(get_args(Difficulty), edges_m[:-1], edges_m[1:], strict=True)
        }
        self._nearest_open = np.asarray(
            distance_transform_edt(~self.is_open, return_distances=False, return_indices=True)
        )  # [2, rows, columns]

    def sample(self, rng: np.random.Generator, difficulty: Difficulty | None = None) -> Episode:
        """Draw an episode; the same state of `rng` gives the same one.

        Args:
            rng: source of randomness.
            difficulty: None: all equally likely.

        Raises:
            InputError: no episode of that difficulty was found.
        """
        if difficulty is None:
            difficulty = list(self.bands_m)[rng.integers(len(self.bands_m))]
        if difficulty not in self.bands_m:
            raise InputError(f"difficulty={difficulty!r}: want one of {', '.join(self.bands_m)}, or None")
        low_m, high_m = self.bands_m[difficulty]
        for _ in range(self.config.attempts):
            goal = self._spots[rng.integers(len(self._spots))]
            distance_m = self._field(int(goal[0]), int(goal[1]))[tuple(self._spots.T)]
            in_band = np.nonzero((distance_m >= low_m) & (distance_m <= high_m))[0]
            if len(in_band):
                chosen = in_band[rng.integers(len(in_band))]
                return self._episode(rng, self._spots[chosen], goal, float(distance_m[chosen]), difficulty)
        raise InputError(
            f"no {difficulty} episode ({low_m:.2f} to {high_m:.2f} m) among {self.config.attempts} goals: want another "
            "difficulty, wider edges_m or more attempts"
        )

    def distance_field(self, goal_m: ArrayLike) -> NDArray[np.float64]:
        """Metres from every cell of `grid` to a goal, inf if unreachable; read-only. [3] -> [rows, columns]

        Raises:
            InputError: the goal cannot be reached; the message names the nearest point that can.
        """
        point_ros_m = _ros_point(goal_m, "goal_m")
        cell = self.grid.cell_of(point_ros_m)
        inside = np.clip(cell, 0, np.subtract(self.is_open.shape, 1))
        if (cell != inside).any() or not self.is_open[tuple(inside)]:
            nearest = self._nearest_open[:, inside[0], inside[1]]
            raise InputError(
                f"goal_m {np.asarray(goal_m).tolist()} cannot be reached: want a point in seen, free space, "
                f"{self.body_radius_m:g} m from obstacles and connected to the clip's camera, such as "
                f"{np.round(self._world_of(nearest), 3).tolist()}"
            )
        return self._field(int(cell[0]), int(cell[1]))

    def geodesic_m(self, point_m: ArrayLike, goal_m: ArrayLike) -> float:
        """Length of the shortest path from a point to a goal on the plan; heights are ignored. [3], [3]

        Between cell centres the field is interpolated. From a point where the body cannot be (it touches
        something, or the point was never seen) the path leads straight to the nearest open cell first.

        Raises:
            InputError: the goal cannot be reached.
        """
        distance_m = self.distance_field(goal_m)
        point_ros_m = _ros_point(point_m, "point_m")
        way_m = self._interpolated(distance_m, point_ros_m)
        return max(way_m, math.dist(point_ros_m, _ros_point(goal_m, "goal_m")))

    def _interpolated(self, distance_m: NDArray[np.float64], point_ros_m: Array) -> float:
        """Value of a field at a point, bilinear between the open ones of the four cells around it."""
        cell = self.grid.cell_of(point_ros_m)
        inside = np.clip(cell, 0, np.subtract(self.is_open.shape, 1))
        if (cell != inside).any() or not self.is_open[tuple(inside)]:
            nearest = self._nearest_open[:, inside[0], inside[1]]
            return float(distance_m[tuple(nearest)]) + math.dist(point_ros_m, self.grid.centre_of(nearest))
        centres = (point_ros_m - self.grid.origin_m)[::-1] / self.grid.resolution_m - 0.5
        low = np.floor(centres).astype(np.int64)
        share = centres - low
        total = weight_sum = 0.0
        for row, weight_row in ((low[0], 1 - share[0]), (low[0] + 1, share[0])):
            for column, weight_column in ((low[1], 1 - share[1]), (low[1] + 1, share[1])):
                is_inside = 0 <= row < self.is_open.shape[0] and 0 <= column < self.is_open.shape[1]
                if is_inside and self.is_open[row, column]:
                    total += weight_row * weight_column * distance_m[row, column]
                    weight_sum += weight_row * weight_column
        return float(total / weight_sum)

    def _field(self, row: int, column: int) -> NDArray[np.float64]:
        if (row, column) not in self._fields:
            field_m = geodesic_distance(self.is_open, (row, column), self.grid.resolution_m)
            field_m.setflags(write=False)
            self._fields[row, column] = field_m
            if len(self._fields) > NUM_FIELDS_KEPT:
                self._fields.popitem(last=False)
        self._fields.move_to_end((row, column))
        return self._fields[row, column]

    def _longest_way_m(self) -> float:
        """Longest path, measured from the spot farthest from the first: exact on a tree, nearly so in a room."""
        if len(self._spots) == 0:
            return 0.0
        farthest_m, spot = 0.0, self._spots[0]
        for _ in range(2):
            distance_m = self._field(int(spot[0]), int(spot[1]))[tuple(self._spots.T)]
            farthest_m, spot = float(distance_m.max()), self._spots[distance_m.argmax()]
        return farthest_m

    def _episode(
        self,
        rng: np.random.Generator,
        start: NDArray[np.int64],
        goal: NDArray[np.int64],
        geodesic_m: float,
        difficulty: Difficulty,
    ) -> Episode:
        start_m, goal_m = self._world_of(start), self._world_of(goal)
        start_rad, goal_rad = (float(heading) for heading in rng.choice(self._headings_rad, 2))
        if self.config.start_heading == "any":
            start_rad = float(rng.uniform(-np.pi, np.pi))
        content: dict[str, Any] = {
            "T_world_start": _level_pose(start_m, start_rad),
            "goal_m": tuple(goal_m.tolist()),
            "T_world_goal": _level_pose(goal_m, goal_rad),
            "geodesic_m": geodesic_m,
            "difficulty": difficulty,
        }
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return Episode(episode_id=f"{difficulty}-{digest[:16]}", **content)

    def _world_of(self, cell: ArrayLike) -> Array:
        """Centres of cells (row, column) at the camera's height, in the world frame. [..., 2] -> [..., 3]"""
        x_ros_m, y_ros_m = np.moveaxis(self.grid.centre_of(cell), -1, 0)
        return np.stack([-y_ros_m, np.full_like(x_ros_m, self.camera_y_m), x_ros_m], axis=-1)


def _camera_y(reference: Reference, world_map: WorldMap, config: EpisodeConfig) -> float:
    if config.camera_height_m is None:
        return float(np.median(reference.T_world_camera[:, 1, 3]))
    floor_y_m = world_map.floor_y_m()
    if floor_y_m is None:
        raise InputError(f"camera_height_m={config.camera_height_m}: the map has no floor to measure from: want None")
    return floor_y_m - config.camera_height_m


def _clearance(grid: PlanningGrid) -> NDArray[np.float64]:
    """Distance from every cell centre to the nearest occupied cell's edge, inf if there is none. [rows, columns]"""
    is_occupied = grid.cells == OCCUPIED
    if not is_occupied.any():
        return np.full(is_occupied.shape, np.inf)
    rows, columns = is_occupied.shape
    covered = np.zeros((2 * rows + 1, 2 * columns + 1), dtype=bool)  # centres, edges and corners of cells
    for row in range(3):
        for column in range(3):
            covered[row : row + 2 * rows : 2, column : column + 2 * columns : 2] |= is_occupied
    return np.asarray(distance_transform_edt(~covered, sampling=grid.resolution_m / 2))[1::2, 1::2]


def _region_around(is_clear: NDArray[np.bool_], path_cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The largest connected region that contains a cell of the path or is nearest to one. [rows, columns]"""
    if not is_clear.any():
        return is_clear
    part = np.empty(is_clear.shape, dtype=np.int64)
    label(is_clear, output=part)  # connected over edges, as paths are
    nearest = np.asarray(distance_transform_edt(~is_clear, return_distances=False, return_indices=True))
    on_path = np.clip(path_cells, 0, np.subtract(is_clear.shape, 1))
    touched = np.unique(part[tuple(nearest[:, on_path[:, 0], on_path[:, 1]])])
    return part == touched[np.bincount(part.ravel())[touched].argmax()]


def _level_pose(position_m: Array, heading_rad: float) -> Matrix:
    """A camera that looks level, turned right from +z."""
    c, s = math.cos(heading_rad), math.sin(heading_rad)
    T = pose_from([[c, 0, s], [0, 1, 0], [-s, 0, c]], position_m)
    return tuple(tuple(row) for row in T.tolist())


def _ros_point(point_m: ArrayLike, name: str) -> Array:
    point = np.asarray(point_m, dtype=np.float64)
    if point.shape != (3,) or not np.all(np.isfinite(point)):
        raise InputError(f"{name} is {point.tolist()}: want three finite numbers (x, y, z of the world, metres)")
    return ros_from_world(point)


def save_episodes(path: str | Path, episodes: list[Episode], *, source: str) -> None:
    """Write a JSON file with one episode per line; it appears whole or not at all.

    Args:
        path: the file.
        episodes: at least one, with unique ids.
        source: where they come from (the clip, the map), for readers of the file.
    """
    if not episodes:
        raise InputError("no episodes to save: want at least one")
    _check_ids([episode.episode_id for episode in episodes], "episodes")
    lines = ",\n".join(json.dumps(asdict(episode), allow_nan=False) for episode in episodes)
    head = json.dumps({"format": FORMAT, "version": VERSION, "source": source})[1:-1]
    with replacing(path) as temporary, writing_to(Path(path)):
        temporary.write_text(f'{{{head}, "episodes": [\n{lines}\n]}}\n', encoding="utf-8")


def load_episodes(path: str | Path) -> list[Episode]:
    """Read what `save_episodes` wrote.

    Raises:
        InputError: the file cannot be read or holds something else; the message names the line or the key.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read episodes {path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}: want JSON as save_episodes writes it") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise InputError(f"{path} is not JSON: want a file that save_episodes wrote") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'{path}: want a JSON object with "format": "{FORMAT}", as save_episodes writes it')
    if content.get("version") != VERSION:
        raise InputError(f"{path}: version is {content.get('version')!r}: want {VERSION}; save the episodes anew")
    items = content.get("episodes")
    if not isinstance(items, list) or not items:
        raise InputError(f"{path}: episodes is {_short(items)}: want a list with at least one")
    episodes = [_episode_of(item, f"{path}: episodes[{i}]") for i, item in enumerate(items)]
    _check_ids([episode.episode_id for episode in episodes], str(path))
    return episodes


def _episode_of(item: Any, where: str) -> Episode:
    if not isinstance(item, dict):
        raise InputError(f"{where} is {_short(item)}: want an object")
    names = [field.name for field in fields(Episode)]
    wrong = [f"no {name}" for name in names if name not in item] + [f"unknown {name}" for name in item.keys() - names]
    if wrong:
        raise InputError(f"{where} has {', '.join(sorted(wrong))}: want {', '.join(names)}")
    try:
        shapes = {"T_world_start": (4, 4), "goal_m": (3,), "T_world_goal": (4, 4), "geodesic_m": ()}
        return Episode(**item | {name: _tuples(item[name], shape, name) for name, shape in shapes.items()})
    except InputError as error:
        raise InputError(f"{where}.{error}") from error


def _tuples(value: Any, shape: tuple[int, ...], name: str) -> Any:
    """Convert nested lists of numbers to nested tuples of floats; raises on other shapes and non-finite numbers."""
    if shape:
        if not isinstance(value, (list, tuple)) or len(value) != shape[0]:
            raise InputError(f"{name} is {_short(value)}: want {' x '.join(map(str, shape))} numbers")
        return tuple(_tuples(part, shape[1:], f"{name}[{i}]") for i, part in enumerate(value))
    if type(value) not in (int, float) or not abs(value) < 1e9:
        raise InputError(f"{name} is {_short(value)}: want a finite number")
    return float(value)


def _check_ids(ids: list[str], where: str) -> None:
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise InputError(f"{where}: episode_id {twice[0]!r} appears more than once: want unique ids")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
