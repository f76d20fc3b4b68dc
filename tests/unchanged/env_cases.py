"""Cases of the Gymnasium envs: every id, action and observation, alone and many at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tests.unchanged import doors
from tests.unchanged.command_cases import CLIP

SMALL = {"video": CLIP, "size_px": (48, 80), "generator": "warp", "grid_cells": 24}
ALWAYS = ("rgb", "depth", "known", "grid", "pose")
GOALS = (*ALWAYS, "goal", "goal_image")
NUM_STEPS = 10

TASKS: dict[str, dict[str, Any]] = {
    "World-v0": {"observations": ALWAYS},
    "PointNav-v0": {"observations": GOALS},
    "ImageNav-v0": {"observations": GOALS, "layout": "pictures", "sparse": True},
    "Explore-v0": {"observations": ALWAYS, "frame_skip": 3},
    "Follow-v0": {"observations": GOALS},
}
ACTIONS: dict[str, dict[str, Any]] = {
    "discrete": {"action": "discrete", "action_options": {"move_m": 0.1, "turn_rad": 0.2}},
    "discrete-time": {"action": "discrete", "time_control": True},
    "unicycle": {"action": "unicycle", "world_options": {"collisions": "stop"}},
    "unicycle-time": {"action": "unicycle", "time_control": True, "action_options": {"speed_mps": 0.5}},
    "6dof": {"action": "6dof"},
    "6dof-chunks": {"action": "6dof", "chunk_actions": True, "generator_options": {"frames_per_block": 3}},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "star": {"generator": "star", "generator_options": {"block_latents": 1}, "prompt": ""},
    "frame": {"generator": "frame"},
}


def env_tasks(folder: Path) -> dict[str, Any]:
    """All five ids."""
    values: dict[str, Any] = {}
    for task, options in TASKS.items():
        values |= _rollout(task, f"{task}", **options)
    held_out = {"observations": ("rgb", "goal"), "task_options": {"path": "held-out"}}
    return values | _rollout("Follow-v0", "Follow-v0-held-out", **held_out)


def env_actions(folder: Path) -> dict[str, Any]:
    """Every kind of action, in every shape."""
    values: dict[str, Any] = {}
    for name, options in ACTIONS.items():
        values |= _rollout("World-v0", name, observations=("rgb", "pose"), **options)
    return values


def env_networks(folder: Path) -> dict[str, Any]:
    """The generators that are networks."""
    values: dict[str, Any] = {}
    for name, options in NETWORKS.items():
        values |= _rollout("PointNav-v0", name, num_steps=4, observations=ALWAYS, **options)
    return values


def env_demo_room(folder: Path) -> dict[str, Any]:
    """The env as it is made without any argument but the generator, which is the quick one."""
    return _rollout("PointNav-v0", "demo-room", num_steps=4, video=None, max_frames=8)


def vector_env(folder: Path) -> dict[str, Any]:
    """Several worlds in one pass of `star`; `warp` in this process, and in two others, which have to agree."""
    slots = [{"video": CLIP}, {"video": "inputs/other-room"}, {"video": CLIP}]
    star = {**SMALL, **NETWORKS["star"], "slots": slots, "num_envs": len(slots)}
    values = _vector_rollout("World-v0", "star", num_steps=3, observations=("rgb", "depth", "known"), **star)
    ends = {**SMALL, "num_envs": 3, "max_steps": 4, "autoreset_mode": "SameStep", "observations": ("rgb", "goal")}
    here = _vector_rollout("PointNav-v0", "warp", num_steps=9, **ends)
    there = _vector_rollout("PointNav-v0", "warp", num_steps=9, num_workers=2, **ends)
    values |= {**here, **{name.replace("warp", "workers", 1): value for name, value in there.items()}}
    waits = {**SMALL, "num_envs": 2, "max_steps": 3, "observations": ("pose", "grid")}
    return values | _vector_rollout("Explore-v0", "next-step", num_steps=6, **waits)


def _rollout(task: str, name: str, *, num_steps: int = NUM_STEPS, **options: Any) -> dict[str, Any]:
    """An episode by actions at random; its second half again, from a snapshot.

    Raises:
        RuntimeError: that did not end as the first time.
    """
    env = gymnasium.make(f"{doors.ENVS}/{task}", render_mode="rgb_array_list", **{**SMALL, **options})
    rng = np.random.default_rng(11)
    observation, info = env.reset(seed=7)
    plain: Any = env.unwrapped
    episode = plain.episode
    steps: list[Any] = [(observation, 0.0, False, False, info)]
    snapshot, actions = None, []
    for step_idx in range(num_steps):
        if step_idx == num_steps // 2:
            snapshot, actions = plain.snapshot(), []
        actions.append(_some_action(env.action_space, rng))
        steps.append(env.step(actions[-1]))
        if steps[-1][2] or steps[-1][3]:
            break
    values = _returned(steps, name)
    frames = plain.render()
    values[f"{name}/frames"] = np.stack(frames)
    values[f"{name}/episode"] = None if episode is None else dataclasses.asdict(episode)
    if snapshot is not None:
        plain.restore(snapshot)
        again = _returned([plain.step(action) for action in actions], name)
        first = _returned(steps[-len(actions) :], name)
        for key in first:
            if not np.array_equal(np.asarray(first[key]), np.asarray(again[key])):
                raise RuntimeError(f"{name}: from a snapshot, {key} is not what it was")
    env.close()
    return values


def _vector_rollout(task: str, name: str, *, num_steps: int, **options: Any) -> dict[str, Any]:
    envs = gymnasium.make_vec(f"{doors.ENVS}/{task}", vectorization_mode="vector_entry_point", **options)
    rng = np.random.default_rng(13)
    observations, infos = envs.reset(seed=3)
    none = np.zeros(envs.num_envs, bool)
    steps: list[Any] = [(_copied(observations), np.zeros(envs.num_envs), none, none, infos)]
    for _ in range(num_steps):
        actions = np.stack([_some_action(envs.single_action_space, rng) for _ in range(envs.num_envs)])
        observations, *rest = envs.step(actions)
        steps.append((_copied(observations), *rest))
    envs.close()
    return _returned(steps, name)


def _copied(observations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in observations.items()}


def _some_action(space: Any, rng: np.random.Generator) -> Any:
    """An action of a space; never the discrete stop, which would end the episode."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(rng.integers(1, space.n))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return rng.integers(np.minimum(1, space.nvec - 1), space.nvec)
    return rng.uniform(space.low, space.high).astype(space.dtype)


def _returned(steps: list[Any], name: str) -> dict[str, Any]:
    """Everything that resets and steps return, by kind."""
    observations, rewards, terminated, truncated, infos = zip(*steps, strict=True)
    return {
        **{f"{name}/{key}": np.stack([seen[key] for seen in observations]) for key in observations[0]},
        f"{name}/rewards": np.array(rewards, np.float64),
        f"{name}/terminated": np.array(terminated),
        f"{name}/truncated": np.array(truncated),
        f"{name}/infos": [_plain(info) for info in infos],
    }


def _plain(value: Any) -> Any:
    """Infos with nothing in them but what JSON holds."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.dtype == object else value.tolist()
    return value.item() if isinstance(value, np.generic) else value
