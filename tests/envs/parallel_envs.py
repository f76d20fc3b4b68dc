"""A program: envs used and closed here, then one for each generator named, in a worker process each.

    python -m tests.envs.parallel_envs CONTEXT PARTY GENERATOR [GENERATOR ...]

CONTEXT is how processes start, PARTY whose vector env is used, gymnasium or sb3.
"""

import sys
from functools import partial

import gymnasium
import inspatio_envs  # noqa: F401 - registers the ids
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv

OPTIONS = {"size_px": (48, 80), "max_frames": 9, "observations": ["depth", "goal"], "max_steps": 3}
GENERATORS = {
    "warp": {"generator": "warp"},
    "star": {"generator": "star", "preset": "tiny"},
    "star-compiled": {"generator": "star", "preset": "tiny", "generator_options": {"compile": True}},
    "frame": {"generator": "frame", "preset": "frame-tiny"},
}
NUM_STEPS = 4  # the last begins another episode


def use_here(make):
    env = make()
    env.reset(seed=0)
    env.step(1)
    env.close()


def use_gymnasium(makes, context):
    envs = AsyncVectorEnv(makes, context=context)
    observations, _ = envs.reset(seed=3)
    for _ in range(NUM_STEPS):
        observations, *_ = envs.step(np.ones(len(makes), int))
    assert (observations["depth"] > 0).any(axis=(1, 2)).all()
    envs.close()


def use_sb3(makes, context):
    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv(makes, start_method=context)
    envs.seed(3)
    observations = envs.reset()
    for _ in range(NUM_STEPS):
        observations, *_ = envs.step(np.ones(len(makes), int))
    assert (observations["depth"] > 0).any(axis=(1, 2)).all()
    envs.close()


def main(context, party, *names):
    torch.set_num_threads(4)  # a pool of threads also where there is one core
    makes = [partial(gymnasium.make, "inspatio/PointNav-v0", **OPTIONS, **GENERATORS[name]) for name in names]
    for make in makes:
        use_here(make)
    {"gymnasium": use_gymnasium, "sb3": use_sb3}[party](makes, context)


if __name__ == "__main__":
    main(*sys.argv[1:])
