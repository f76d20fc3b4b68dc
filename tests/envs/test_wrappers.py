"""Wrappers keep the contract and do what they say."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from inspatio_envs.wrappers import GoalImage, GridObservation, HallucinationPenalty, TrustHorizon

from inspatio_sim.errors import InputError
from tests.envs.conftest import make

RIGHT = np.array([0, -1], np.float32)


def test_penalty_is_the_share_of_what_is_made_up():
    env = HallucinationPenalty(make(), weight=2.0)
    env.reset(seed=0)
    for _ in range(5):
        _, reward, _, _, info = env.step(RIGHT)
        assert reward == -2 * info["hallucinated_fraction"]
    assert reward < 0


def test_trust_ends_after_so_many_steps_in_a_row():
    env = TrustHorizon(make(), max_hallucinated_fraction=0.1, patience=3)
    for _ in range(2):
        env.reset(seed=0)
        fractions, truncated = [], False
        while not truncated and len(fractions) < 30:
            _, _, _, truncated, info = env.step(RIGHT)
            fractions.append(info["hallucinated_fraction"])
        assert truncated
        assert info["left_trust"] == "hallucinated_fraction"
        assert min(fractions[-3:]) > 0.1
        over = [fraction > 0.1 for fraction in fractions]
        assert not any(all(over[i : i + 3]) for i in range(len(over) - 3))


def test_added_observations_are_those_of_an_env_that_has_them():
    env = GoalImage(GridObservation(make("PointNav", observations=["goal"])))
    other = make("PointNav", observations=["goal", "grid", "goal_image"])
    assert env.observation_space == other.observation_space
    observation, expected = env.reset(seed=0)[0], other.reset(seed=0)[0]
    assert observation.keys() == expected.keys()
    assert all(np.array_equal(observation[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrapper", [HallucinationPenalty, TrustHorizon, GridObservation, GoalImage])
def test_wrapped_envs_pass_the_checker_and_can_be_made_again(wrapper):
    env = wrapper(make("PointNav"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env)
    assert isinstance(gymnasium.make(env.spec), wrapper)


def test_what_cannot_be_is_refused():
    for call, message in (
        (lambda: HallucinationPenalty(make(), weight=-1), "weight=-1"),
        (lambda: TrustHorizon(make(), max_drift=2), "max_drift=2"),
        (lambda: TrustHorizon(make(), patience=0), "patience=0"),
        (lambda: GoalImage(make()), "the task 'free' has no goal_image"),
        (lambda: GridObservation(gymnasium.make("CartPole-v1")), "the env is a CartPoleEnv"),
    ):
        with pytest.raises(InputError, match=message):
            call()
