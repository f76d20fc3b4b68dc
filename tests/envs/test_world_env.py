"""The env without a task keeps Gymnasium's contract."""

import warnings

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

ID = "inspatio_envs:inspatio/World-v0"


def make(**options):
    return gymnasium.make(ID, size_px=(48, 80), **options)


def test_check_env_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(render_mode="rgb_array").unwrapped)


def test_seeded_rollouts_are_the_same():
    rollouts = []
    for _ in range(2):
        env = make()
        observation, _ = env.reset(seed=3)
        frames = [observation["rgb"]]
        for action in ([1, 0], [0.5, 1], [0, -1]):
            observation, reward, terminated, truncated, info = env.step(np.array(action, np.float32))
            frames.append(observation["rgb"])
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info["time_s"] > 0
        rollouts.append(np.stack(frames))
    assert np.array_equal(*rollouts)


def test_positive_turn_is_left_and_forward_is_ahead():
    env = make()
    start, _ = env.reset(seed=0)
    turned = env.step(np.array([0, 1], np.float32))[0]["pose"]
    assert (start["pose"][:3, 0] @ turned[:3, 2]) < 0  # looks towards -x: left
    env.reset(seed=0)
    moved = env.step(np.array([1, 0], np.float32))[0]["pose"]
    assert (moved[:3, 3] - start["pose"][:3, 3]) @ start["pose"][:3, 2] > 0
