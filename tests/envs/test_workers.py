"""Slots in processes of their own show what slots of this process show."""

import os
import signal

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from inspatio_envs.vector_env import InspatioVectorEnv
from inspatio_envs.workers import WorkerDied

from inspatio_sim.errors import InputError
from tests.envs.test_env import same

OPTIONS = {
    "task": "pointnav",
    "generator": "warp",
    "size_px": (32, 48),
    "max_frames": 8,
    "observations": ["depth", "grid", "goal"],
    "max_steps": 4,
}


def pair(**more):
    here = InspatioVectorEnv(3, **OPTIONS, **more)
    return here, InspatioVectorEnv(3, num_workers=2, **OPTIONS, **more)


def assert_same(one, other):
    assert same(one, other)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_workers_show_what_this_process_shows(mode):
    here, there = pair(autoreset_mode=mode)
    try:
        assert there.observation_space == here.observation_space
        assert_same(here.reset(seed=5), there.reset(seed=5))
        actions = np.random.default_rng(0).integers(1, 9, (6, 3))
        for action in actions:
            if mode == "Disabled" and (here._is_over).any():
                mask = here._is_over.copy()
                for envs in (here, there):
                    with pytest.raises(ResetNeeded, match="reset_mask"):
                        envs.step(action)
                assert_same(here.reset(options={"reset_mask": mask}), there.reset(options={"reset_mask": mask}))
            assert_same(here.step(action), there.step(action))
        goals = [there.call_slot(i, "task").goal_m() for i in range(3)]
        assert_same(goals, [env.task.goal_m() for env in here.envs])
    finally:
        here.close()
        there.close()


def test_pictures_and_calls_come_from_the_right_slot():
    here, there = pair(render_mode="rgb_array")
    try:
        options = {"slots": [{}, {}, {"pose": np.eye(4)}]}
        here.reset(seed=1, options=options)
        there.reset(seed=1, options=options)
        for one, other in zip(here.render(), there.render(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert there.call_slot(2, "observe_as", ["pose"]).tolist() == [0, 0, 0, 0, 0, 0, 1]
        snapshot = there.call_slot(1, "snapshot")
        first = there.step([1, 1, 1])[0]
        there.call_slot(1, "restore", [snapshot])
        np.testing.assert_array_equal(there.step([1, 1, 1])[0]["depth"][1], first["depth"][1])
    finally:
        here.close()
        there.close()


def test_mistakes_name_the_slot_and_leave_all_as_they_were():
    envs = InspatioVectorEnv(3, num_workers=3, **OPTIONS)
    try:
        with pytest.raises(ResetNeeded):
            envs.step([1, 1, 1])
        envs.reset(seed=0)
        with pytest.raises(InputError, match="slot 2: .*action"):
            envs.step([1, 1, 99])
        with pytest.raises(InputError, match="slot 1: .*pose"):
            envs.reset(options={"slots": [{}, {"pose": np.zeros((4, 4))}, {}]})
        envs.reset(seed=0)
        envs.step([1, 1, 1])
    finally:
        envs.close()
        envs.close()


def test_a_worker_that_died_is_named():
    envs = InspatioVectorEnv(2, num_workers=2, **OPTIONS)
    try:
        envs.reset(seed=0)
        os.kill(envs._workers._processes[1].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"slots 1 to 1 ended \(exit code -9"):
            envs.step([1, 1])
        with pytest.raises(WorkerDied, match="make the envs again"):
            envs.step([1, 1])
    finally:
        envs.close()


@pytest.mark.parametrize("num_workers", [-1, 3, 1.5, True, "two"])
def test_a_number_of_workers_that_cannot_be(num_workers):
    with pytest.raises(InputError, match="num_workers="):
        InspatioVectorEnv(2, num_workers=num_workers, **OPTIONS)
