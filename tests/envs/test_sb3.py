"""The adapter shows Stable-Baselines3 what its own vector env shows, and its algorithms can use it."""

import numpy as np
import pytest
from gymnasium.wrappers.vector import DictInfoToList

from inspatio_sim.errors import InputError
from tests.envs.conftest import make
from tests.envs.test_env import same
from tests.envs.test_vector_env import make_vec

vec_env = pytest.importorskip("stable_baselines3.common.vec_env", reason="stable-baselines3 is not installed")
from inspatio_envs.sb3 import InspatioVecEnv  # noqa: E402 - needs it

PICTURES = {"layout": "pictures", "observations": ["depth", "grid", "goal"]}


def make_sb3(num_envs=2, **options):
    return InspatioVecEnv(make_vec(num_envs=num_envs, autoreset_mode="SameStep", **PICTURES | options))


def test_it_shows_what_a_dummy_vec_env_shows():
    limits = ({"max_steps": 2}, {"max_steps": 3}, {})
    ours = make_sb3(num_envs=3, slots=list(limits))
    theirs = vec_env.DummyVecEnv([lambda more=more: make("PointNav", **PICTURES | more) for more in limits])
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for envs in (ours, theirs):
        envs.seed(3)
    assert same(ours.reset(), theirs.reset())
    assert same(ours.reset_infos, theirs.reset_infos)
    for actions in np.random.default_rng(0).integers(1, 9, (5, 3)):
        (seen, rewards, dones, infos), expected = ours.step(actions), theirs.step(actions)
        assert same((seen, rewards, dones), expected[:3])
        assert (rewards.dtype, dones.dtype) == (expected[1].dtype, expected[2].dtype)
        assert same(infos, expected[3])
        assert same(ours.reset_infos, theirs.reset_infos)


def test_a_stop_is_no_truncation():
    envs = make_sb3()
    envs.reset()
    _, _, dones, infos = envs.step(np.array([0, 1]))
    assert dones.tolist() == [True, False]
    assert "terminal_observation" in infos[0]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False]


def test_options_of_the_next_reset_and_attributes():
    envs = make_sb3(render_mode="rgb_array")
    envs.set_options({"episode": "nowhere"})
    with pytest.raises(InputError, match="slot 0: options.'episode'.='nowhere'"):
        envs.reset()
    envs.set_options()
    envs.reset()
    assert [config.max_steps for config in envs.get_attr("config")] == [500, 500]
    envs.set_attr("label", "mine", indices=1)
    assert not hasattr(envs.inner.envs[0], "label")
    assert envs.get_attr("label", indices=[1]) == ["mine"]
    assert envs.env_method("observe_as", "pose", indices=0)[0].shape == (7,)
    assert envs.env_is_wrapped(vec_env.VecEnvWrapper) == [False, False]
    assert envs.render().shape == (96, 80, 3)  # one below the other
    envs.close()


def test_ppo_learns_a_little():
    ppo = pytest.importorskip("stable_baselines3").PPO
    envs = vec_env.VecMonitor(make_sb3(max_steps=3, action="unicycle"))
    model = ppo("MultiInputPolicy", envs, n_steps=4, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(8)
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
    assert [episode["l"] for episode in model.ep_info_buffer] == [3, 3]


def test_it_wants_a_vector_env_that_resets_in_the_same_step():
    with pytest.raises(InputError, match="envs.autoreset_mode is NextStep: want autoreset_mode='SameStep'"):
        InspatioVecEnv(make_vec())
    wrapped = DictInfoToList(make_vec(autoreset_mode="SameStep"))
    with pytest.raises(InputError, match="envs is a DictInfoToList"):
        InspatioVecEnv(wrapped)
