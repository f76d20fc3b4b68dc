"""Commands in, camera motions out: speed limits, ramps, timeouts, and driving to a goal. Independent of ROS.

A floor pose is x, y and yaw in the map's axes (REP-103: x forward, y left, yaw to the left), under the camera.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_ros.parameters import Drive
from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.mapping.grid import OCCUPIED, UNKNOWN
from inspatio_sim.motion.camera import Array, PoseDelta

MAX_NUDGES = 16  # maximum number of waiting 6-DoF motions; beyond it the oldest is dropped
MAX_GOAL_M = 100.0  # maximum distance from the robot
MIN_HEADING = 0.02  # horizontal part of the viewing direction; below it the heading comes from the camera's left side
LOOKAHEAD_M = 0.3  # distance along the path of the point to steer to
PLAN_PERIOD_S = 1.0  # sim time after which the path is checked against the map again
PATIENCE_S = 10.0  # sim time without progress until a goal is given up
PROGRESS_M = 0.05  # distance that counts as progress
BRAKING = 0.6  # share of the maximum acceleration used to stop in time
TURN_FIRST_RAD = math.radians(60)  # turn on the spot if a path begins further to the side

GoalState = Literal["driving", "reached", "cancelled", "unreachable", "stuck"]


class Velocity(NamedTuple):
    """Velocity of the level base: forward, left, and turn rate to the left."""

    x_mps: float
    y_mps: float
    turn_radps: float


class FloorPose(NamedTuple):
    x_m: float
    y_m: float
    yaw_rad: float


STANDING = Velocity(0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """Limits of the base. Ranges are those of `parameters`."""

    drive: Drive = "unicycle"
    max_speed_mps: float = 0.5
    max_turn_rate_radps: float = 1.0
    max_acceleration_mps2: float = 1.0
    max_turn_acceleration_radps2: float = 3.0
    cmd_vel_timeout_s: float = 0.5  # sim time
    goal_tolerance_m: float = 0.1
    goal_tolerance_rad: float = 0.1
    goal_through_unknown: bool = True
    body_radius_m: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal and its progress."""

    x_m: float
    y_m: float
    yaw_rad: float | None  # None: any heading
    state: GoalState = "driving"
    path_m: NDArray[np.float64] | None = None  # path from where it was planned to the goal; None: no plan yet. [M, 2]
    distance_m: float = math.inf  # remaining


@dataclass(frozen=True, kw_only=True)
class BlockMotion:
    """The camera's motions during one block."""

    deltas: list[PoseDelta]  # in the camera frame, one per frame
    received_s: float | None = None  # wall time of the earliest command that takes effect in this block
    note: object = None  # note of that command


@dataclass(frozen=True, kw_only=True)
class DriverState:
    """Everything a driver needs to continue."""

    velocity: Velocity
    command: Velocity
    command_age_s: float
    goal: Goal | None


def floor_pose(T_world_camera: Array) -> FloorPose:
    """Floor pose of the camera. [4, 4]"""
    R, t_m = T_world_camera[:3, :3], T_world_camera[:3, 3]
    x, y = R[2, 2], -R[0, 2]
    if math.hypot(x, y) < MIN_HEADING:
        x, y = R[0, 0], R[2, 0]
    return FloorPose(float(t_m[2]), float(-t_m[0]), math.atan2(y, x))


def base_axes(T_world_camera: Array) -> Array:
    """Forward, left and up of the level base, as columns in the camera's axes. [4, 4] -> [3, 3]"""
    yaw_rad = floor_pose(T_world_camera).yaw_rad
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    R_world_base = np.array([[-sin, -cos, 0.0], [0.0, 0.0, -1.0], [cos, -sin, 0.0]])
    return T_world_camera[:3, :3].T @ R_world_base


def limited(velocity: Velocity, config: DriveConfig) -> Velocity:
    """Limit a velocity to what the base can do, keeping its direction."""
    x, y = velocity.x_mps, velocity.y_mps if config.drive == "holonomic" else 0.0
    share = min(1.0, config.max_speed_mps / max(math.hypot(x, y), 1e-12))
    return Velocity(share * x, share * y, _clamped(velocity.turn_radps, config.max_turn_rate_radps))


def ramped(now: Velocity, wanted: Velocity, config: DriveConfig, duration_s: float) -> Velocity:
    """The velocity nearest to the target that the acceleration limits allow."""
    dx, dy = wanted.x_mps - now.x_mps, wanted.y_mps - now.y_mps
    share = min(1.0, config.max_acceleration_mps2 * duration_s / max(math.hypot(dx, dy), 1e-12))
    turn = _clamped(wanted.turn_radps - now.turn_radps, config.max_turn_acceleration_radps2 * duration_s)
    return Velocity(now.x_mps + share * dx, now.y_mps + share * dy, now.turn_radps + turn)


def moved(pose: FloorPose, velocity: Velocity, duration_s: float) -> FloorPose:
    """A floor pose after a constant velocity (moved along the chord of the arc)."""
    middle_rad = pose.yaw_rad + 0.5 * velocity.turn_radps * duration_s
    cos, sin = math.cos(middle_rad), math.sin(middle_rad)
    return FloorPose(
        pose.x_m + (cos * velocity.x_mps - sin * velocity.y_mps) * duration_s,
        pose.y_m + (sin * velocity.x_mps + cos * velocity.y_mps) * duration_s,
        pose.yaw_rad + velocity.turn_radps * duration_s,
    )


class Driver:
    """The base under the camera: takes commands from any thread and gives the motions of each block.

    The latest command wins; `cmd_vel`, a nudge or a new goal ends the current goal. A command lasts for the timeout
    in sim time, and at least for the block that begins with it.
    """

    def __init__(self, config: DriveConfig | None = None) -> None:
        self._config = config or DriveConfig()
        self._changed = threading.Condition()
        self._nudges: deque[tuple[PoseDelta, float, object]] = deque(maxlen=MAX_NUDGES)
        self._forget()

    def _forget(self) -> None:
        self._velocity = self._command = STANDING
        self._command_time_s = -math.inf
        self._nudges.clear()
        self._note: object = None
        self._received_s: float | None = None  # None: no command since the last block began
        self._goal: Goal | None = None
        self._planned_s = self._best_s = -math.inf
        self._best_m = math.inf

    @property
    def config(self) -> DriveConfig:
        return self._config

    @config.setter
    def config(self, config: DriveConfig) -> None:
        with self._changed:
            self._config = config

    @property
    def goal(self) -> Goal | None:
        """The last goal; None: none since the start."""
        return self._goal

    @property
    def velocity(self) -> Velocity:
        """Velocity of the base at the end of the last block."""
        return self._velocity

    def reset(self) -> None:
        """Stop, discard all commands and cancel an active goal."""
        with self._changed:
            goal = self._goal
            self._forget()
            if goal is not None and goal.state == "driving":
                self._goal = replace(goal, state="cancelled")

    def command(self, velocity: Velocity, time_s: float, received_s: float, note: object = None) -> None:
        """Drive at this velocity from now on; raises InputError on NaN and inf.

        Args:
            velocity: target velocity; limits are applied later.
            time_s: sim time of the command.
            received_s: wall time (`time.perf_counter`), to measure latency.
            note: any object; the block that executes the command returns it.
        """
        if not all(map(math.isfinite, velocity)):
            raise InputError(f"cmd_vel {tuple(velocity)} has NaN or inf: ignored")
        with self._changed:
            self._end_goal()
            self._command, self._command_time_s = velocity, time_s
            self._nudges.clear()
            self._note_command(received_s, note)

    def nudge(self, delta: PoseDelta, received_s: float, note: object = None) -> None:
        """Queue one motion in the camera frame, which gets its own block."""
        with self._changed:
            self._end_goal()
            self._command_time_s = -math.inf
            self._nudges.append((delta, received_s, note))
            self._changed.notify_all()

    def go_to(self, x_m: float, y_m: float, yaw_rad: float | None, received_s: float, note: object = None) -> None:
        """Drive to a place in the map; raises InputError on NaN and inf."""
        if not all(map(math.isfinite, (x_m, y_m, yaw_rad or 0.0))):
            raise InputError(f"goal ({x_m}, {y_m}, {yaw_rad}) has NaN or inf: ignored")
        with self._changed:
            self._end_goal()
            self._command_time_s = -math.inf
            self._nudges.clear()
            self._goal = Goal(x_m=x_m, y_m=y_m, yaw_rad=yaw_rad)
            self._planned_s, self._best_s, self._best_m = -math.inf, math.inf, math.inf
            self._note_command(received_s, note)

    def cancel(self) -> bool:
        """Cancel the goal; False if none is active."""
        with self._changed:
            was_driving = self.is_going
            self._end_goal()
            return was_driving

    @property
    def is_going(self) -> bool:
        """Whether a goal is active."""
        return self._goal is not None and self._goal.state == "driving"

    def wait_for_command(self, timeout_s: float) -> bool:
        """Wait for a command newer than the last block; False if none came."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._nudges) or self._received_s is not None, timeout_s)

    def begin_block(
        self,
        T_world_camera: Array,
        time_s: float,
        num_frames: int,
        frame_s: float,
        find_grid: Callable[[], PlanningGrid],
    ) -> BlockMotion:
        """The camera's motion at each frame of the block that begins now.

        Args:
            T_world_camera: the current camera pose. [4, 4]
            time_s: the current sim time.
            num_frames: F.
            frame_s: duration of a frame.
            find_grid: returns the floor plan; called only if needed.
        """
        with self._changed:
            config = self._config
            if self._nudges:
                delta, received_s, note = self._nudges.popleft()
                self._velocity = STANDING
                return BlockMotion(deltas=num_frames * [delta.part(1 / num_frames)], received_s=received_s, note=note)
            received_s, self._received_s, note, self._note = self._received_s, None, self._note, None
            pose = floor_pose(T_world_camera)
            if self.is_going and time_s - self._planned_s >= PLAN_PERIOD_S:
                self._check_path(pose, time_s, find_grid())
            is_timely = time_s - self._command_time_s < config.cmd_vel_timeout_s
            command = limited(self._command, config) if is_timely else STANDING
            axes = base_axes(T_world_camera)
            deltas = []
            for i in range(num_frames):
                if self.is_going:
                    command = self._steered(pose, frame_s, time_s + i * frame_s)
                elif not is_timely:
                    command = STANDING
                velocity = self._velocity = ramped(self._velocity, command, config, frame_s)
                pose = moved(pose, velocity, frame_s)
                linear = axes @ np.array([velocity.x_mps, velocity.y_mps, 0.0])
                deltas.append(PoseDelta.from_twist(linear, axes[:, 2] * velocity.turn_radps, frame_s))
            return BlockMotion(deltas=deltas, received_s=received_s, note=note)

    def collided(self, T_before: Array, T_after: Array, duration_s: float) -> None:
        """After a collision, set the velocity to the actual motion between these two cameras."""
        way_m = base_axes(T_before).T @ (T_before[:3, :3].T @ (T_after[:3, 3] - T_before[:3, 3]))
        with self._changed:
            self._velocity = self._velocity._replace(x_mps=way_m[0] / duration_s, y_mps=way_m[1] / duration_s)
            self._planned_s = -math.inf

    def state(self, time_s: float) -> DriverState:
        """Everything needed to continue."""
        with self._changed:
            age_s = time_s - self._command_time_s
            return DriverState(velocity=self._velocity, command=self._command, command_age_s=age_s, goal=self._goal)

    def load_state(self, state: DriverState, time_s: float) -> None:
        """Continue from `state()` at another sim time."""
        with self._changed:
            self._forget()
            self._velocity, self._command, self._goal = state.velocity, state.command, state.goal
            self._command_time_s = time_s - state.command_age_s
            self._best_s = time_s

    def _note_command(self, received_s: float, note: object) -> None:
        self._note = note
        if self._received_s is None:
            self._received_s = received_s
        self._changed.notify_all()

    def _end_goal(self, state: GoalState = "cancelled") -> None:
        if self._goal is not None and self._goal.state == "driving":
            self._goal = replace(self._goal, state=state)

    def _check_path(self, pose: FloorPose, time_s: float, grid: PlanningGrid) -> None:
        """Plan if there is no path, or if it is blocked."""
        goal, config = self._goal, self._config
        assert goal is not None, "driving somewhere"
        self._planned_s = time_s
        if goal.path_m is not None and is_clear(grid, goal.path_m, pose[:2], config.body_radius_m):
            return
        if math.hypot(goal.x_m - pose.x_m, goal.y_m - pose.y_m) <= config.goal_tolerance_m:
            path_m = np.array([pose[:2], (goal.x_m, goal.y_m)])  # no plan needed
        else:
            path_m = plan_path(
                grid, pose[:2], (goal.x_m, goal.y_m), config.body_radius_m, through_unknown=config.goal_through_unknown
            )
        if path_m is None:
            self._end_goal("unreachable")
        else:
            self._goal = replace(goal, path_m=path_m)

    def _steered(self, pose: FloorPose, frame_s: float, time_s: float) -> Velocity:
        """The velocity that follows the path; ends the goal if it is reached or unreachable."""
        goal, config = self._goal, self._config
        assert goal is not None, "driving somewhere"
        assert goal.path_m is not None, "planned before"
        ahead, to_go_m = look_ahead(goal.path_m, pose[:2], LOOKAHEAD_M)
        self._goal = goal = replace(goal, distance_m=to_go_m)
        if to_go_m <= config.goal_tolerance_m:
            error_rad = 0.0 if goal.yaw_rad is None else _wrapped(goal.yaw_rad - pose.yaw_rad)
            if abs(error_rad) <= config.goal_tolerance_rad:
                self._end_goal("reached")
                return STANDING
            return Velocity(0.0, 0.0, self._turn_rate(error_rad, frame_s))
        if to_go_m < self._best_m - PROGRESS_M or not math.isfinite(self._best_s):
            self._best_m, self._best_s = to_go_m, time_s
        elif time_s - self._best_s > PATIENCE_S:
            self._end_goal("stuck")
            return STANDING
        error_rad = _wrapped(math.atan2(ahead[1] - pose.y_m, ahead[0] - pose.x_m) - pose.yaw_rad)
        speed = min(config.max_speed_mps, math.sqrt(2 * BRAKING * config.max_acceleration_mps2 * to_go_m))
        speed *= max(0.0, math.cos(error_rad)) if abs(error_rad) < TURN_FIRST_RAD else 0.0
        return Velocity(speed, 0.0, self._turn_rate(error_rad, frame_s))

    def _turn_rate(self, error_rad: float, frame_s: float) -> float:
        config = self._config
        rate = min(
            config.max_turn_rate_radps,
            math.sqrt(2 * BRAKING * config.max_turn_acceleration_radps2 * abs(error_rad)),
            0.5 * abs(error_rad) / frame_s,
        )
        return math.copysign(rate, error_rad)


def plan_path(
    grid: PlanningGrid,
    start_m: ArrayLike,
    goal_m: ArrayLike,
    robot_radius_m: float,
    *,
    through_unknown: bool,
) -> NDArray[np.float64] | None:
    """The shortest collision-free path, through known space if possible. [M, 2]

    A robot too near an obstacle may move away from it. None if there is no path.
    """
    start, end = np.asarray(start_m, dtype=np.float64), np.asarray(goal_m, dtype=np.float64)
    if np.abs(end - start).max() > MAX_GOAL_M:
        return None
    grid = _padded(grid, start, end, margin_m=1.0)
    rows, columns = np.indices(grid.cells.shape)
    centres_m = grid.centre_of(np.stack([rows, columns], axis=-1))
    is_near = np.linalg.norm(centres_m - start, axis=-1) <= robot_radius_m + 2 * grid.resolution_m
    is_near &= grid.cells != OCCUPIED
    for is_unknown_free in (False, True) if through_unknown else (False,):
        for clearance_m in (robot_radius_m + grid.resolution_m, robot_radius_m):  # with more clearance first
            cells = grid.inflated(clearance_m).cells.copy()
            cells[is_near] = 0
            path_m = replace(grid, cells=cells).plan(start, end, is_unknown_free=is_unknown_free)
            if path_m is not None:
                return path_m
    return None


def is_clear(grid: PlanningGrid, path_m: NDArray[np.float64], position_m: ArrayLike, robot_radius_m: float) -> bool:
    """Whether a robot is still near its path and can follow it. [M, 2], [2]"""
    position = np.asarray(position_m, dtype=np.float64)
    ahead, to_go_m = look_ahead(path_m, position, LOOKAHEAD_M)
    if np.linalg.norm(ahead - position) > 2 * LOOKAHEAD_M:
        return False
    inflated = grid.inflated(robot_radius_m).cells
    num_points = 2 + math.ceil(to_go_m / grid.resolution_m)
    points_m = np.array([look_ahead(path_m, position, share * to_go_m)[0] for share in np.linspace(0, 1, num_points)])
    points_m = points_m[np.linalg.norm(points_m - position, axis=-1) > robot_radius_m + 2 * grid.resolution_m]
    cells = grid.cell_of(points_m)
    is_inside = ((cells >= 0) & (cells < grid.cells.shape)).all(axis=-1)
    return not (inflated[tuple(cells[is_inside].T)] == OCCUPIED).any()


def look_ahead(
    path_m: NDArray[np.float64], position_m: ArrayLike, distance_m: float
) -> tuple[NDArray[np.float64], float]:
    """The point of a path at a distance ahead of the position, and the remaining length.

    Args:
        path_m: [M, 2]
        position_m: [2]
        distance_m: distance ahead, along the path.

    Returns:
        The point [2], and the metres from the position to the path's end.
    """
    position = np.asarray(position_m, dtype=np.float64)
    starts, ways = path_m[:-1], np.diff(path_m, axis=0)
    lengths = np.linalg.norm(ways, axis=-1)
    shares = np.einsum("ij,ij->i", position - starts, ways) / np.maximum(lengths, 1e-12) ** 2
    nearest = starts + np.clip(shares, 0, 1)[:, None] * ways
    offsets_m = np.linalg.norm(nearest - position, axis=-1)
    segment = len(offsets_m) - 1 - int(np.argmin(offsets_m[::-1]))  # the last one of equally near ones
    ends_m = np.concatenate([[0.0], np.cumsum(lengths)])
    along_m = ends_m[segment] + float(np.clip(shares[segment], 0, 1)) * lengths[segment]
    ahead_m = min(along_m + distance_m, ends_m[-1])
    point = np.array([np.interp(ahead_m, ends_m, path_m[:, axis]) for axis in range(2)])
    return point, float(ends_m[-1] - along_m + offsets_m[segment])


def _padded(
    grid: PlanningGrid, start_m: NDArray[np.float64], goal_m: NDArray[np.float64], margin_m: float
) -> PlanningGrid:
    """The grid, enlarged by unknown cells if needed to contain both points."""
    cells = grid.cell_of(np.stack([start_m, goal_m]))
    margin = math.ceil(margin_m / grid.resolution_m)
    before = np.maximum(0, margin - cells.min(axis=0))
    after = np.maximum(0, cells.max(axis=0) + margin + 1 - np.array(grid.cells.shape))
    padded = np.pad(grid.cells, list(zip(before, after, strict=True)), constant_values=UNKNOWN)
    origin_m = np.asarray(grid.origin_m) - before[::-1] * grid.resolution_m
    return replace(grid, cells=padded, origin_m=(float(origin_m[0]), float(origin_m[1])))


def _clamped(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def _wrapped(angle_rad: float) -> float:
    """Wrap to -pi .. pi."""
    return math.remainder(angle_rad, 2 * math.pi)
