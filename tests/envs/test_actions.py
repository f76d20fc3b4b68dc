"""Actions of an env: spaces, sizes, signs."""

import math

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from inspatio_envs.actions import DISCRETE, TIMES, action_set, checked_action

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import PoseDelta


def twist(actions, action, duration_s=0.5):
    motion, time = actions.motion(checked_action(action, actions.space), duration_s)
    assert isinstance(motion, PoseDelta)
    return motion.twist.tolist(), time


def test_discrete_actions_have_fixed_sizes():
    actions = action_set("discrete", {"move_m": 0.5, "turn_rad": 0.1})
    assert isinstance(actions.space, spaces.Discrete)
    assert actions.space.n == len(DISCRETE) == 9
    moved = [twist(actions, i)[0] for i in range(9)]
    assert moved == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0.5, 0, 0, 0],
        [0, 0, -0.5, 0, 0, 0],
        [-0.5, 0, 0, 0, 0, 0],
        [0.5, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, -0.1, 0],
        [0, 0, 0, 0, 0.1, 0],
        [0, 0, 0, 0.1, 0, 0],
        [0, 0, 0, -0.1, 0, 0],
    ]
    assert [actions.is_stop(np.int64(i)) for i in range(9)] == [True] + 8 * [False]


def test_boxes_are_velocities_in_units_of_the_limits():
    unicycle = action_set("unicycle", {"speed_mps": 2.0, "turn_rate_radps": 1.0})
    assert twist(unicycle, [1, 0.5])[0] == pytest.approx([0, 0, 1, 0, -0.25, 0])
    six_dof = action_set("6dof")
    assert twist(six_dof, [1, 0, 0, 0, 0, -1])[0] == pytest.approx([0.5, 0, 0, 0, 0, -0.75])
    assert twist(six_dof, [9, 0, 0, 0, 0, 0])[0] == twist(six_dof, [1, 0, 0, 0, 0, 0])[0]  # clipped


def test_time_is_one_more_choice():
    discrete = action_set("discrete", time_control=True)
    assert isinstance(discrete.space, spaces.MultiDiscrete)
    assert discrete.space.nvec.tolist() == [9, 4]
    assert [twist(discrete, [1, i])[1] for i in range(4)] == list(TIMES) == ["reverse", "freeze", "slow", None]
    assert discrete.is_stop(np.array([0, 2]))
    box = action_set("unicycle", time_control=True)
    assert box.space.shape == (3,)
    assert [twist(box, [0, 0, time])[1] for time in (-1, -0.51, -0.49, 0, 0.49, 0.51, 1)] == [
        "reverse", "reverse", "freeze", "slow", "slow", None, None,
    ]  # fmt: skip


def test_an_action_for_each_frame():
    actions = action_set("unicycle", time_control=True, num_frames=3)
    assert actions.space.shape == (3, 3)
    motions, times = actions.motion(np.array([[1.0, 0, 1], [0, 1, 1], [-1, 0, -1]]), 0.6)
    assert isinstance(motions, list)
    assert np.stack([motion.twist for motion in motions]) == pytest.approx(
        np.array([[0, 0, 0.2, 0, 0, 0], [0, 0, 0, 0, -0.3, 0], [0, 0, -0.2, 0, 0, 0]])
    )
    assert times == [None, None, "reverse"]
    discrete = action_set("discrete", time_control=True, num_frames=2)
    assert isinstance(discrete.space, spaces.MultiDiscrete)
    assert discrete.space.nvec.tolist() == [9, 4, 9, 4]
    assert discrete.motion(np.array([1, 3, 2, 0]), 1)[1] == [None, "reverse"]
    assert discrete.is_stop(np.array([1, 0, 0, 0]))
    assert not discrete.is_stop(np.array([1, 0, 1, 0]))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["discrete", "unicycle", "6dof"]),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2**31 - 1),
)
def test_all_that_can_be_sampled_can_be_done(name, time_control, num_frames, seed):
    actions = action_set(name, time_control=time_control, num_frames=num_frames)
    actions.space.seed(seed)
    motion, time = actions.motion(checked_action(actions.space.sample(), actions.space), 0.5)
    motions = [motion] if isinstance(motion, PoseDelta) else list(motion)
    assert len(motions) == max(num_frames, 1)
    assert all(part.distance_m <= 0.5 * math.sqrt(3) + 1e-6 for part in motions)
    assert isinstance(time, list) == (num_frames > 0)


def test_options_are_checked():
    for options, message in (({"move_m": "far"}, "'far'"), ({"move_m": True}, "True"), ({"turn_rad": 4}, "turn_rad=4")):
        with pytest.raises(InputError, match=message):
            action_set("discrete", options)
