"""Tasks: where an episode begins, how a step is rewarded, what is measured.

A task holds the state of one episode but nothing of the world, so a copy of it is a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from inspatio_envs.episodes import Difficulty, Episode, EpisodeConfig, EpisodeSampler
from inspatio_envs.measures import Ground, Walk, is_observed
from inspatio_envs.shared import Place
from inspatio_sim.condition.condition import build_condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.generators.warp import inpaint
from inspatio_sim.motion.camera import Array

TaskName = Literal["free", "pointnav", "imagenav", "explore", "follow"]

ANGLE_WORTH_M = 0.5  # a radian counts as this many metres when looking for the clip's nearest view


@dataclass(frozen=True, kw_only=True)
class View:
    """The part of an env that a task can use."""

    place: Place
    body_radius_m: float
    step_s: float  # simulated time per step
    episodes: EpisodeConfig | None = None

    @property
    def sampler(self) -> EpisodeSampler:
        """The sampler of episodes."""
        return self.place.sampler(self.episodes, self.body_radius_m)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request of a reset."""

    episode: Episode | None = None  # None: the task draws one if it has episodes
    T_world_start: Array | None = None  # overrides the start. [4, 4]
    difficulty: Difficulty | None = None  # difficulty of a drawn episode; None: any


@dataclass(frozen=True, kw_only=True)
class TaskStep:
    """The outcome of a step."""

    reward: float
    terminated: bool
    measures: dict[str, float]  # for `info`


class Task(Protocol):
    """The interface of a task. An env calls `prepare`, resets the world, calls `begin`, then `watch` and `step`."""

    shows: frozenset[str]  # observations that this task provides

    def prepare(self, view: View, request: Request, rng: np.random.Generator) -> Episode | None:
        """The next episode, which is solvable; None: the task has no goal."""
        ...

    def begin(self, view: View, episode: Episode | None, observation: Observation) -> dict[str, float]:
        """Start an episode; returns the measures so far."""
        ...

    def step(self, view: View, observation: Observation, *, is_stop: bool) -> TaskStep:
        """The outcome of the last step, whose blocks `watch` has seen."""
        ...

    def watch(self, view: View, observation: Observation) -> None:
        """Observe one block of the world; a step may have several."""
        ...

    def goal_m(self) -> Array:
        """The goal, world frame. [3]"""
        ...

    def goal_image(self, view: View) -> NDArray[np.uint8]:
        """The camera's image at the goal. [H, W, 3]"""
        ...


class Free:
    """No task: no rewards, no end, no measures."""

    shows: frozenset[str] = frozenset()

    def prepare(self, view: View, request: Request, rng: np.random.Generator) -> Episode | None:
        del view, rng
        return request.episode

    def begin(self, view: View, episode: Episode | None, observation: Observation) -> dict[str, float]:
        del view, episode, observation
        return {}

    def watch(self, view: View, observation: Observation) -> None:
        del view, observation

    def step(self, view: View, observation: Observation, *, is_stop: bool) -> TaskStep:
        del view, observation, is_stop
        return TaskStep(reward=0.0, terminated=False, measures={})

    def goal_m(self) -> Array:
        raise InputError("the task 'free' has no goal: want task='pointnav', 'imagenav' or 'follow'")

    def goal_image(self, view: View) -> NDArray[np.uint8]:
        del view
        raise InputError("the task 'free' has no goal image: want task='pointnav', 'imagenav' or 'follow'")


@dataclass(frozen=True, kw_only=True)
class NavConfig:
    """Rewards and success of PointNav and ImageNav."""

    success_distance_m: float = 0.3  # geodesic distance to the goal that counts as success
    success_reward: float = 2.5
    slack_reward: float = -0.01  # in every step
    collision_reward: float = 0.0  # in every step with a collision
    needs_stop: bool | None = None  # only a stop ends the episode; None: if there is a stop action
    sparse: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "success_distance_m")
        _check_finite(self, "success_reward", "slack_reward", "collision_reward")
        if self.needs_stop not in (True, False, None):
            raise InputError(f"needs_stop={self.needs_stop!r}: want True, False or None")


class Nav:
    """Go to a goal in the plane.

    With d the geodesic distance to the goal in metres (through space that the clip shows as free, with room for the
    body), L = d at the start, P the length of the path so far:

    - reward, dense: (d before - d now) + slack + collision reward after a collision + success reward at success
    - reward, sparse: 1 at success, else 0
    - success: d <= success_distance_m when the agent stops, or as soon as that holds if no stop is needed
    - the episode ends with a stop, or with success if no stop is needed
    - spl = success * L / max(L, P)   (Anderson et al., On Evaluation of Embodied Navigation Agents, 2018)
    - soft_spl = max(0, 1 - d / L) * L / max(L, P)   (Datta et al., Integrating Egocentric Localization, 2020)
    - distance_to_goal_m = d

    Where the body cannot be, or the ground was never seen, d goes straight to the nearest point where it is known.

    On observed space only: success_observed, spl_observed and soft_spl_observed are 0 as soon as the agent has left
    ground that the clip shows; distance_to_goal_m_observed is the distance at the last position there.
    """

    shows = frozenset({"goal", "goal_image"})

    def __init__(self, config: NavConfig | None = None, *, has_stop: bool) -> None:
        self.config = config or NavConfig()
        self.needs_stop = has_stop if self.config.needs_stop is None else self.config.needs_stop
        if self.needs_stop and not has_stop:
            raise InputError("needs_stop=True: this action space has no stop: want action='discrete'")

    def prepare(self, view: View, request: Request, rng: np.random.Generator) -> Episode | None:
        episode = request.episode or view.sampler.sample(rng, request.difficulty)
        start = episode.T_world_start if request.T_world_start is None else _as_tuples(request.T_world_start)
        geodesic_m = view.sampler.geodesic_m([row[3] for row in start[:3]], episode.goal_m)
        if request.T_world_start is None:
            geodesic_m = episode.geodesic_m
        return replace(episode, T_world_start=start, geodesic_m=geodesic_m)

    def begin(self, view: View, episode: Episode | None, observation: Observation) -> dict[str, float]:
        assert episode is not None, "navigation always has an episode"
        self.episode = episode
        self.walk = Walk(view.place, observation)
        self._goal_image: NDArray[np.uint8] | None = None
        self.distance_m = self.observed_distance_m = self._distance(view)
        self.has_succeeded = self._has_touched = False
        return self._measures()

    def watch(self, view: View, observation: Observation) -> None:
        self.walk.watch(view.place, observation)
        self._has_touched |= observation.has_collided

    def step(self, view: View, observation: Observation, *, is_stop: bool) -> TaskStep:
        del observation
        config, before_m = self.config, self.distance_m
        self.distance_m = self._distance(view)
        if self.walk.is_observed:
            self.observed_distance_m = self.distance_m
        is_there = self.distance_m <= config.success_distance_m
        self.has_succeeded = is_there and (is_stop or not self.needs_stop)
        reward = float(self.has_succeeded)
        if not config.sparse:
            reward = before_m - self.distance_m + config.slack_reward + config.success_reward * self.has_succeeded
            reward += config.collision_reward * self._has_touched
        self._has_touched = False
        return TaskStep(reward=reward, terminated=self.has_succeeded or is_stop, measures=self._measures())

    def goal_m(self) -> Array:
        return np.array(self.episode.goal_m)

    def goal_image(self, view: View) -> NDArray[np.uint8]:
        if self._goal_image is None:
            self._goal_image = picture_from(view.place, np.array(self.episode.T_world_goal))
        return self._goal_image.copy()

    def _distance(self, view: View) -> float:
        return view.sampler.geodesic_m(self.walk.position_m, self.goal_m())

    def _measures(self) -> dict[str, float]:
        shortest_m = max(self.episode.geodesic_m, 1e-6)
        efficiency = shortest_m / max(shortest_m, self.walk.path_length_m[0])
        spl = self.has_succeeded * efficiency
        soft_spl = max(0.0, 1 - self.distance_m / shortest_m) * efficiency
        is_observed = self.walk.was_always_observed
        return {
            "success": float(self.has_succeeded),
            "success_observed": float(self.has_succeeded and is_observed),
            "spl": spl,
            "spl_observed": spl * is_observed,
            "soft_spl": soft_spl,
            "soft_spl_observed": soft_spl * is_observed,
            "distance_to_goal_m": self.distance_m,
            "distance_to_goal_m_observed": self.observed_distance_m,
            **self.walk.measures(),
        }


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """Rewards and success of Explore."""

    near_m: float = 0.5  # ground within this distance of the camera's path is explored, in the plane
    success_share: float = 0.9  # share of the explorable ground
    slack_reward: float = -0.01
    sparse: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "near_m", "success_share")
        _check_finite(self, "slack_reward")
        if self.success_share > 1:
            raise InputError(f"success_share={self.success_share}: want more than 0, at most 1")


class Explore:
    """Explore all reachable ground.

    With A the ground in square metres within `near_m` of the camera's path, and A_all all the ground that the clip
    shows as free and the body can reach (`EpisodeSampler.is_open`):

    - reward, dense: (A now - A before) + slack
    - reward, sparse: 1 at success, else 0
    - success: A >= success_share * A_all; then the episode ends
    - explored_share = A / A_all

    Looking around is not enough, since one turn in a corner shows all of a room. Episodes start where those of point
    navigation do.

    On observed space only: explored_share_observed counts what the camera came near while above ground that the clip
    shows; success_observed is 0 as soon as the agent has left it.
    """

    shows: frozenset[str] = frozenset()

    def __init__(self, config: ExploreConfig | None = None) -> None:
        self.config = config or ExploreConfig()

    def prepare(self, view: View, request: Request, rng: np.random.Generator) -> Episode | None:
        if request.episode is not None or request.T_world_start is not None:
            return request.episode
        return view.sampler.sample(rng, request.difficulty)

    def begin(self, view: View, episode: Episode | None, observation: Observation) -> dict[str, float]:
        del episode
        self.walk = Walk(view.place, observation)
        self.ground = Ground(view.sampler, self.config.near_m)
        self.ground.visit(view.sampler, self.walk.position_m, is_observed=self.walk.is_observed)
        self.area_m2 = self.ground.explored_m2
        return self._measures()

    def watch(self, view: View, observation: Observation) -> None:
        self.walk.watch(view.place, observation)
        for T_world_camera in observation.T_world_camera:
            position_m = T_world_camera[:3, 3]
            self.ground.visit(view.sampler, position_m, is_observed=is_observed(view.place, position_m))

    def step(self, view: View, observation: Observation, *, is_stop: bool) -> TaskStep:
        del view, observation, is_stop
        before_m2, self.area_m2 = self.area_m2, self.ground.explored_m2
        has_succeeded = self._has_succeeded
        reward = float(has_succeeded) if self.config.sparse else self.area_m2 - before_m2 + self.config.slack_reward
        return TaskStep(reward=reward, terminated=has_succeeded, measures=self._measures())

    def goal_m(self) -> Array:
        raise InputError("the task 'explore' has no goal: want task='pointnav', 'imagenav' or 'follow'")

    def goal_image(self, view: View) -> NDArray[np.uint8]:
        del view
        raise InputError("the task 'explore' has no goal image: want task='pointnav', 'imagenav' or 'follow'")

    @property
    def _has_succeeded(self) -> bool:
        return self.ground.explored_share[0] >= self.config.success_share

    def _measures(self) -> dict[str, float]:
        explored_share, explored_share_observed = self.ground.explored_share
        return {
            "success": float(self._has_succeeded),
            "success_observed": float(self._has_succeeded and self.walk.was_always_observed),
            "explored_share": explored_share,
            "explored_share_observed": explored_share_observed,
            **self.walk.measures(),
        }


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """Rewards and success of Follow."""

    path: Literal["reference", "held-out"] = "reference"  # held-out: frames that the world is not made from
    success_distance_m: float = 0.3
    success_angle_rad: float = 0.35
    sparse: bool = False

    def __post_init__(self) -> None:
        if self.path not in ("reference", "held-out"):
            raise InputError(f"path={self.path!r}: want reference or held-out")
        _check_positive(self, "success_distance_m", "success_angle_rad")


class Follow:
    """Follow the clip's camera in time.

    The target at time t is the first camera of the path at or after t. With e the distance to it in metres
    and a the angle to it in radians, after the step:

    - reward, dense: exp(-e / success_distance_m - a / success_angle_rad)
    - reward, sparse: 1 if e <= success_distance_m and a <= success_angle_rad, else 0
    - the episode ends when the path does; success: the sparse reward was 1 in at least nine steps of ten
    - position_error_m = mean of e, rotation_error_rad = mean of a, over the steps so far; psnr_db: of the last
      frame against the path's own, at most 100

    The observed goal is the target after the next step. On observed space only: means over the steps that
    end on ground the clip shows; success_observed is 0 as soon as the agent has left it.
    """

    shows = frozenset({"goal", "goal_image"})

    def __init__(self, config: FollowConfig | None = None) -> None:
        self.config = config or FollowConfig()

    def prepare(self, view: View, request: Request, rng: np.random.Generator) -> Episode | None:
        del view, rng
        return request.episode

    def begin(self, view: View, episode: Episode | None, observation: Observation) -> dict[str, float]:
        del episode
        self.walk = Walk(view.place, observation)
        self._errors = np.zeros((2, 3))  # total, on observed ground: sum of e, sum of a, steps
        self._num_close = 0
        self._measure(view, observation)
        return self._measures()

    def watch(self, view: View, observation: Observation) -> None:
        self.walk.watch(view.place, observation)

    def step(self, view: View, observation: Observation, *, is_stop: bool) -> TaskStep:
        del is_stop
        config = self.config
        distance_m, angle_rad = self._measure(view, observation)
        self._errors[0] += distance_m, angle_rad, 1
        if self.walk.is_observed:
            self._errors[1] += distance_m, angle_rad, 1
        is_close = distance_m <= config.success_distance_m and angle_rad <= config.success_angle_rad
        self._num_close += is_close
        reward = float(is_close)
        if not config.sparse:
            reward = float(np.exp(-distance_m / config.success_distance_m - angle_rad / config.success_angle_rad))
        return TaskStep(reward=reward, terminated=self._is_over, measures=self._measures())

    def goal_m(self) -> Array:
        return self._goal_m.copy()

    def goal_image(self, view: View) -> NDArray[np.uint8]:
        return view.place.track.frames_u8[self._goal_idx].copy()

    def _measure(self, view: View, observation: Observation) -> tuple[float, float]:
        """Update the current and next target; returns distance and angle to the current one."""
        track, time_s = view.place.track, float(observation.time_s[-1])
        target_idx = track.at(time_s)
        self._goal_idx = track.at(time_s + view.step_s)
        self._goal_m = track.T_world_camera[self._goal_idx, :3, 3]
        self._is_over = target_idx == len(track.time_s) - 1
        difference = observation.rgb_u8[-1].astype(np.float64) - track.frames_u8[target_idx]
        self._psnr_db = min(100.0, float(10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9))))
        target = track.T_world_camera[target_idx]
        R = target[:3, :3].T @ observation.T_world_camera[-1, :3, :3]
        angle_rad = float(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)))
        return float(np.linalg.norm(observation.T_world_camera[-1, :3, 3] - target[:3, 3])), angle_rad

    def _measures(self) -> dict[str, float]:
        num_steps = self._errors[:, 2]
        means = self._errors[:, :2] / np.maximum(num_steps, 1)[:, None]
        has_succeeded = bool(self._is_over and self._num_close >= 0.9 * num_steps[0])
        return {
            "success": float(has_succeeded),
            "success_observed": float(has_succeeded and self.walk.was_always_observed),
            "position_error_m": float(means[0, 0]),
            "position_error_m_observed": float(means[1, 0]),
            "rotation_error_rad": float(means[0, 1]),
            "rotation_error_rad_observed": float(means[1, 1]),
            "psnr_db": self._psnr_db,
            **self.walk.measures(),
        }


def picture_from(place: Place, T_world_camera: Array) -> NDArray[np.uint8]:
    """The clip seen from a pose: its nearest frame and its map, holes inpainted. [H, W, 3]"""
    known = place.reference.T_world_camera
    cos = (np.einsum("nij,ij->n", known[:, :3, :3], T_world_camera[:3, :3]) - 1) / 2
    away_m = np.linalg.norm(known[:, :3, 3] - T_world_camera[:3, 3], axis=1)
    nearest = int(np.argmin(away_m + ANGLE_WORTH_M * np.arccos(np.clip(cos, -1, 1))))
    condition = build_condition(place.reference, place.map, T_world_camera[None], np.array([nearest]))
    return inpaint(condition.render_u8[0], ~condition.is_rendered[0])


def _as_tuples(T: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in T.tolist())


_CONFIGS = {"pointnav": NavConfig, "imagenav": NavConfig, "explore": ExploreConfig, "follow": FollowConfig}


def task_by_name(
    name: TaskName, options: Mapping[str, Any] | None = None, *, sparse: bool = False, has_stop: bool = False
) -> Task:
    """Make a task.

    Args:
        name: free, pointnav, imagenav, explore or follow.
        options: fields of `NavConfig`, `ExploreConfig` or `FollowConfig`.
        sparse: reward success only.
        has_stop: whether the action space has a stop.
    """
    if name not in get_args(TaskName):
        raise InputError(f"task={name!r}: want one of {', '.join(get_args(TaskName))}")
    options = dict(options or {})
    known = [key for key in getattr(_CONFIGS.get(name), "__dataclass_fields__", {}) if key != "sparse"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        want = f"want some of {', '.join(known)}" if known else "this task has none"
        raise InputError(f"task_options has {', '.join(unknown)}: with task={name!r} {want}")
    if name == "free":
        return Free()
    config = _CONFIGS[name](**options, sparse=sparse)
    if isinstance(config, NavConfig):
        return Nav(config, has_stop=has_stop)
    return Explore(config) if isinstance(config, ExploreConfig) else Follow(config)


def _check_finite(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise InputError(f"{name}={value!r}: want a finite number")


def _check_positive(config: object, *names: str) -> None:
    _check_finite(config, *names)
    for name in names:
        if getattr(config, name) <= 0:
            raise InputError(f"{name}={getattr(config, name)}: want it positive")
