"""What Gymnasium promises of every env, for all ids, actions and options."""

import json
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from inspatio_envs.vector_env import InspatioVectorEnv

from tests.envs.conftest import IDS, make
from tests.envs.test_env import same
from tests.envs.test_vector_env import FAST

ACTIONS = ("discrete", "unicycle", "6dof")
OPTIONS = [
    {"observations": ["grid"], "grid_cells": 40, "max_steps": None},
    {"layout": "pictures", "time_control": True, "frame_skip": 2, "sparse": True},
    {"chunk_actions": True, "generator_options": {"frames_per_block": 2}, "max_hallucinated_fraction": 0.5},
    {"episode_options": {"camera_height_m": 0.9, "start_heading": "any"}, "difficulty": "easy", "max_drift": 0.2},
]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", IDS)
def test_checkers_have_nothing_to_say(name, action):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in OPTIONS:
            check_env(make(name, action=action, **options).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_checker_of_stable_baselines_has_nothing_to_say(action):
    check = pytest.importorskip("stable_baselines3.common.env_checker", reason="no stable-baselines3").check_env
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in OPTIONS:
            check(make("PointNav", action=action, **{**options, "layout": "pictures"}).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_a_spec_goes_through_json_and_makes_the_same_env(name):
    options = {"episode_options": {"camera_height_m": 0.9}, "observations": ["known", "pose"], "max_steps": 7}
    env = make(name, action="6dof", **options)
    text = env.spec.to_json()
    assert json.loads(text)["kwargs"]["action"] == "6dof"
    again = gymnasium.make(EnvSpec.from_json(text))
    assert again.spec.to_json() == text
    assert same(env.reset(seed=3), again.reset(seed=3))
    assert same(env.step(np.zeros(6)), again.step(np.zeros(6)))


def test_spaces_can_be_pickled():
    env = make("PointNav", observations=["rgb", "depth", "known", "grid", "pose", "goal", "goal_image"])
    for space in (env.observation_space, env.action_space, make(action="6dof", time_control=True).action_space):
        again = pickle.loads(pickle.dumps(space))
        assert again == space
        assert again.contains(space.sample())


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", None])
def test_every_way_to_make_a_vector_env(mode):
    env_id = "inspatio_envs:inspatio/PointNav-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec(env_id, 2, mode, **FAST)
    assert isinstance(envs, InspatioVectorEnv) == (mode != "sync")
    alone = make("PointNav")
    observations, _ = envs.reset(seed=4)
    expected, _ = alone.reset(seed=5)
    assert same({name: values[1] for name, values in observations.items()}, expected)
    envs.close()
    envs.close()


def test_two_envs_at_once_do_not_touch_each_other():
    first, second, alone = (make("PointNav") for _ in range(3))
    for env in (first, alone):
        env.reset(seed=0)
    second.reset(seed=1)
    for action in (1, 5, 1):
        second.step(6)
        seen, expected = first.step(action), alone.step(action)
        assert same(seen, expected)
        second.reset(seed=action)
    second.close()
    assert same(first.step(1), alone.step(1))
