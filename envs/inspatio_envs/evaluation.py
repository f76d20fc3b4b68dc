"""Evaluate a policy on held-out episodes: success, SPL, images of its paths, a video."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from inspatio_envs.env import InspatioEnv
from inspatio_envs.episodes import Episode, EpisodeSampler
from inspatio_envs.spaces import MAX_PICTURE_DEPTH_M
from inspatio_envs.vector_env import InspatioVectorEnv, Observations
from inspatio_sim.clips.video import VideoWriter
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.mapping.geodesic import descend
from inspatio_sim.mapping.grid import FREE, OCCUPIED, ros_from_world
from inspatio_sim.motion.camera import Array
from inspatio_sim.pictures import Picture, colour_depth, save_png, side_by_side
from inspatio_sim.progress import Progress

Policy = Callable[[Observations], NDArray[Any]]
"""Batched observations of the vector env -> one action per slot."""
Watcher = Callable[[int, InspatioEnv, Array], None]
"""Called as `watch(i, env, path_m)`: episode i in its env, after the path [N, 3] so far."""

Z_95 = 1.96
CELL_PX = 8  # size of a floor-plan cell in images
VIDEO_HEIGHT_PX = 256
SHOWN_DEPTH_M = 5.0
NUM_FILMED = 4
UNKNOWN_COLOUR, FREE_COLOUR, OCCUPIED_COLOUR = (176, 176, 176), (246, 246, 246), (52, 52, 60)
SHORTEST_COLOUR, START_COLOUR, GOAL_COLOUR = (150, 170, 220), (40, 90, 220), (235, 160, 20)
SUCCESS_COLOUR, FAILURE_COLOUR = (30, 150, 70), (210, 40, 40)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one episode went."""

    episode: Episode
    success: float
    spl: float
    soft_spl: float
    distance_to_goal_m: float  # at the end
    num_steps: int
    reward: float  # sum
    path_m: Array  # camera positions, world frame. [num_steps + 1, 3]


def split_episodes(
    sampler: EpisodeSampler, num_train: int, num_held_out: int, *, seed: int = 0, apart_m: float = 0.2
) -> tuple[list[Episode], list[Episode]]:
    """Draw episodes for training and others for evaluation.

    Args:
        sampler: the sampler of the place.
        num_train: number of training episodes.
        num_held_out: number of held-out episodes; they depend on the seed but not on `num_train`.
        seed: random seed of both.
        apart_m: no training episode has both ends within this distance of those of a held-out one, in either
            direction.

    Raises:
        InputError: the place is too small for this many.
    """
    rng = np.random.default_rng([seed, 0])
    held_out = _distinct(sampler, rng, num_held_out, [], 0.0)
    rng = np.random.default_rng([seed, 1])
    return _distinct(sampler, rng, num_train, held_out, apart_m), held_out


def _distinct(
    sampler: EpisodeSampler, rng: np.random.Generator, num_episodes: int, others: Sequence[Episode], apart_m: float
) -> list[Episode]:
    drawn: dict[str, Episode] = {}
    taken = np.array([_ends(other) for other in others]).reshape(-1, 2, 3)
    taken = np.concatenate([taken, taken[:, ::-1]])  # both directions
    for _ in range(20 * num_episodes):
        if len(drawn) == num_episodes:
            break
        episode = sampler.sample(rng)
        away_m = np.linalg.norm(taken - _ends(episode), axis=-1).max(axis=1)
        if not (away_m <= apart_m).any():
            drawn[episode.episode_id] = episode
    if len(drawn) < num_episodes:
        raise InputError(f"found {len(drawn)} episodes of {num_episodes} in this place: want fewer, or a larger place")
    return list(drawn.values())


def _ends(episode: Episode) -> Array:
    return np.array([[row[3] for row in episode.T_world_start[:3]], episode.goal_m])


def evaluate(
    envs: InspatioVectorEnv,
    policy: Policy,
    episodes: Sequence[Episode],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    what: str = "evaluation",
    watch: Watcher | None = None,
) -> list[Trial]:
    """Play every episode once, several at a time.

    Args:
        envs: PointNav or ImageNav, made with `autoreset_mode="Disabled"`.
        policy: acts in all slots; its actions for idle slots are ignored.
        episodes: the episodes to play.
        seed: episode i gets seed + i, in any slot.
        progress: called with the share of finished episodes.
        what: name of the progress bar.
        watch: called for every episode at its start and after each step.

    Returns:
        One trial for each episode, in the same order.
    """
    if envs.autoreset_mode != AutoresetMode.DISABLED:
        raise InputError(f"envs.autoreset_mode is {envs.autoreset_mode.value}: want autoreset_mode='Disabled'")
    if not episodes:
        raise InputError("no episodes to evaluate on: want at least one")
    waiting = deque(range(len(episodes)))
    playing: dict[int, int] = {}  # slot -> episode
    rewards = np.zeros(len(episodes))
    paths_m: list[list[Array]] = [[] for _ in episodes]
    trials: dict[int, Trial] = {}

    def begin(is_idle: NDArray[np.bool_]) -> Observations:
        """Start the next episode in each idle slot; once all have started, repeat the first one, uncounted."""
        seeds: list[int | None] = [None] * envs.num_envs
        options: list[dict[str, Any] | None] = [None] * envs.num_envs
        slots = [int(slot) for slot in np.flatnonzero(is_idle)]
        for slot in slots:
            playing.pop(slot, None)
            if waiting:
                playing[slot] = waiting.popleft()
            i = playing.get(slot, 0)
            seeds[slot], options[slot] = seed + i, {"episode": episodes[i]}
        observations, _ = envs.reset(seed=seeds, options={"reset_mask": is_idle, "slots": options})
        for slot in slots:
            if slot in playing:
                note(slot)
        return observations

    def note(slot: int) -> None:
        i = playing[slot]
        paths_m[i].append(_position_m(envs, slot))
        if watch is not None:
            watch(i, envs.envs[slot], np.array(paths_m[i]))

    observations = begin(np.ones(envs.num_envs, np.bool_))
    while len(trials) < len(episodes):
        observations, reward, terminated, truncated, infos = envs.step(policy(observations))
        is_over = terminated | truncated
        for slot, i in playing.items():
            rewards[i] += reward[slot]
            note(slot)
            if is_over[slot]:
                trials[i] = _trial(episodes[i], infos, slot, float(rewards[i]), np.array(paths_m[i]))
        if progress is not None:
            progress(what, len(trials) / len(episodes))
        if is_over.any() and len(trials) < len(episodes):
            observations = begin(is_over)
    return [trials[i] for i in range(len(episodes))]


def summary(trials: Sequence[Trial]) -> dict[str, float]:
    """Means over the trials, with their uncertainty.

    Returns:
        num_episodes and num_successes; success with its 95 % interval (Wilson, 1927); spl, soft_spl,
        num_steps, reward and distance_to_goal_m, each with the standard error of its mean.
    """
    num_episodes = len(trials)
    if num_episodes == 0:
        raise InputError("no trials to summarise: want at least one")
    num_successes = int(sum(trial.success for trial in trials))
    low, high = wilson_interval(num_successes, num_episodes)
    report: dict[str, float] = {
        "num_episodes": num_episodes,
        "num_successes": num_successes,
        "success": num_successes / num_episodes,
        "success_low": low,
        "success_high": high,
    }
    for name in ("spl", "soft_spl", "num_steps", "reward", "distance_to_goal_m"):
        values = np.array([getattr(trial, name) for trial in trials], np.float64)
        report[name] = float(values.mean())
        report[f"{name}_error"] = float(values.std(ddof=1) / math.sqrt(num_episodes)) if num_episodes > 1 else 0.0
    return report


def in_words(report: Mapping[str, float]) -> str:
    """A `summary` on one line."""
    return (
        f"success {report['success']:.2f} ({report['success_low']:.2f} to {report['success_high']:.2f}; "
        f"{report['num_successes']} of {report['num_episodes']}), "
        f"SPL {report['spl']:.2f} ± {report['spl_error']:.2f}, "
        f"soft SPL {report['soft_spl']:.2f} ± {report['soft_spl_error']:.2f}, "
        f"{report['num_steps']:.0f} steps"
    )


def wilson_interval(num_successes: int, num_trials: int, z: float = Z_95) -> tuple[float, float]:
    """Confidence interval of a share of successes; z=1.96 means 95 %.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    share, scale = num_successes / num_trials, z * z / num_trials
    middle = (share + scale / 2) / (1 + scale)
    half = math.sqrt(share * (1 - share) * scale + scale * scale / 4) / (1 + scale)
    return max(0.0, middle - half), min(1.0, middle + half)


def judge(
    envs: InspatioVectorEnv,
    policy: Policy,
    episodes: Sequence[Episode],
    folder: str | Path,
    *,
    actions: Sequence[int] | NDArray[np.int64],
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a policy against a random one; write evaluation.json, paths.png and episode.mp4.

    Args:
        envs: as for `evaluate`, already reset once.
        policy: the policy; called with as many slots as `envs` has, and with one.
        episodes: held-out episodes; the first four are filmed.
        folder: folder for the files.
        actions: the actions of the random policy.
        seed: seed of worlds and random actions.
        facts: further JSON-ready entries of the report.
        progress: called with the share of finished episodes.

    Returns:
        The report, see `write_report`.
    """
    rng = np.random.default_rng(seed)
    policies: dict[str, Policy] = {"policy": policy, "random": lambda _: rng.choice(actions, envs.num_envs)}
    trials = {
        name: evaluate(envs, each, episodes, seed=seed, progress=progress, what=f"evaluation: {name}")
        for name, each in policies.items()
    }
    config = envs.envs[0].config
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    alone = InspatioVectorEnv(1, autoreset_mode=AutoresetMode.DISABLED, **options)
    record(alone, policy, episodes[:NUM_FILMED], Path(folder) / "episode.mp4", seed=seed)
    alone.close()
    return write_report(folder, trials, envs.envs[0].sampler, facts or {})


def write_report(
    folder: str | Path, trials: Mapping[str, Sequence[Trial]], sampler: EpisodeSampler, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write evaluation.json, with all trials, and paths.png, with the first dozen of the first policy.

    Args:
        folder: folder for both files.
        trials: name of a policy -> its trials on the same episodes; the evaluated policy first.
        sampler: the sampler of the place.
        facts: further JSON-ready entries of the report.

    Returns:
        The contents of evaluation.json without the single trials: the facts, and each policy's `summary`.
    """
    report = {**facts, **{name: summary(each) for name, each in trials.items()}}
    names = ("success", "spl", "soft_spl", "distance_to_goal_m", "num_steps", "reward")
    singles = {
        policy: [
            {"episode_id": trial.episode.episode_id, **{name: getattr(trial, name) for name in names}} for trial in each
        ]
        for policy, each in trials.items()
    }
    path = Path(folder) / "evaluation.json"
    with replacing(path) as temporary, writing_to(path):
        temporary.write_text(json.dumps({**report, "trials": singles}, indent=1) + "\n", encoding="utf-8")
    save_png(Path(folder) / "paths.png", draw_paths(sampler, next(iter(trials.values()))))
    return report


def draw_paths(sampler: EpisodeSampler, trials: Sequence[Trial], max_panels: int = 12) -> Picture:
    """Draw paths from above, one floor plan each: green if the agent succeeded, red if not.

    Light is free, dark an obstacle at the body's height, grey unseen. A dot is the start, a ring the goal;
    the thin line is the shortest path.

    Args:
        sampler: the sampler of the place.
        trials: the trials; the first `max_panels` are drawn.
        max_panels: maximum number of panels.

    Returns:
        RGB. [H, W, 3]
    """
    panels = {}
    for i, trial in enumerate(trials[:max_panels]):
        outcome = f"SPL {trial.spl:.2f}" if trial.success else f"{trial.distance_to_goal_m:.1f} m off"
        label = f"{i + 1}: {outcome}, {trial.num_steps} steps"
        panels[label] = draw_path(sampler, trial.episode, trial.path_m, trial.success)
    return side_by_side(panels, columns=4)


def draw_path(sampler: EpisodeSampler, episode: Episode, path_m: Array, success: float | None = None) -> Picture:
    """Draw one path on the floor plan; up is ahead of the clip's first camera. See `draw_paths`.

    Args:
        sampler: the sampler of the place.
        episode: the episode, for its goal.
        path_m: positions, world frame. [N, 3]
        success: 1 or 0; None: not known yet.

    Returns:
        RGB. [H, W, 3]
    """
    grid = sampler.grid
    colours = np.full((*grid.cells.shape, 3), UNKNOWN_COLOUR, np.uint8)
    colours[grid.cells == FREE] = FREE_COLOUR
    colours[grid.cells == OCCUPIED] = OCCUPIED_COLOUR
    upright = colours.transpose(1, 0, 2)[::-1, ::-1]  # rows go along -x_ros, columns along -y_ros
    picture = np.ascontiguousarray(upright.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1))
    height_px, width_px = picture.shape[:2]

    def pixels(points_ros_m: NDArray[np.float64]) -> NDArray[np.int32]:
        offset_px = (points_ros_m - grid.origin_m) / grid.resolution_m * CELL_PX
        return np.rint([width_px, height_px] - offset_px[..., ::-1]).astype(np.int32)

    row, column = (int(i) for i in grid.cell_of(ros_from_world(path_m[0])))
    shortest = descend(sampler.distance_field(episode.goal_m), (row, column), grid.resolution_m)
    way, goal = pixels(ros_from_world(path_m)), pixels(ros_from_world(episode.goal_m)).tolist()
    colour = START_COLOUR if success is None else SUCCESS_COLOUR if success else FAILURE_COLOUR
    cv2.polylines(picture, [pixels(grid.centre_of(shortest))], False, SHORTEST_COLOUR, 1, cv2.LINE_AA)
    cv2.polylines(picture, [way], False, colour, 2, cv2.LINE_AA)
    cv2.circle(picture, way[0].tolist(), CELL_PX // 2, START_COLOUR, -1, cv2.LINE_AA)
    cv2.circle(picture, goal, CELL_PX, GOAL_COLOUR, 2, cv2.LINE_AA)
    cv2.circle(picture, way[-1].tolist(), CELL_PX // 3, colour, -1, cv2.LINE_AA)
    return picture


def record(
    envs: InspatioVectorEnv,
    policy: Policy,
    episodes: Sequence[Episode],
    path: str | Path,
    *,
    seed: int = 0,
    fps: float = 4.0,
) -> list[Trial]:
    """Play episodes in sequence and write a video: the agent's view, its depth, its path from above.

    Args:
        envs: as for `evaluate`, with one slot.
        policy: acts in that slot.
        episodes: the episodes to play.
        path: the video file.
        seed: episode i gets seed + i, as in `evaluate`.
        fps: steps per second.
    """
    if envs.num_envs != 1:
        raise InputError(f"envs has {envs.num_envs} slots: want one to record")
    sampler: EpisodeSampler | None = None

    def show(i: int, env: InspatioEnv, path_m: Array) -> None:
        nonlocal sampler
        sampler = sampler or env.sampler
        rgb_u8, depth_m = env.observe_as("rgb"), env.observe_as("depth")
        if depth_m.dtype == np.uint8:  # the layout `pictures`
            depth_m = np.maximum(depth_m[..., 0].astype(np.float32) - 1, 0) / 254 * MAX_PICTURE_DEPTH_M
        plan = draw_path(sampler, episodes[i], path_m)
        panels = {
            f"episode {i + 1}, step {len(path_m) - 1}": _upscaled(rgb_u8),
            f"depth, to {SHOWN_DEPTH_M:g} m": _upscaled(colour_depth(depth_m, SHOWN_DEPTH_M, 0.5)),
            "from above": plan,
        }
        video.write(side_by_side(panels))

    with VideoWriter(path, fps) as video:
        return evaluate(envs, policy, episodes, seed=seed, watch=show)


def _upscaled(picture: Picture) -> Picture:
    scale = max(1, VIDEO_HEIGHT_PX // picture.shape[0])
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _position_m(envs: InspatioVectorEnv, slot: int) -> Array:
    return envs.envs[slot].world.T_world_camera[:3, 3].copy()


def _trial(episode: Episode, infos: Mapping[str, Any], slot: int, reward: float, path_m: Array) -> Trial:
    measures = {name: float(infos[name][slot]) for name in ("success", "spl", "soft_spl", "distance_to_goal_m")}
    return Trial(episode=episode, num_steps=len(path_m) - 1, reward=reward, path_m=path_m, **measures)
