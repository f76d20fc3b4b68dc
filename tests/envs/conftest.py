"""Small, fast envs, and one that stays open so that its clip is read only once."""

import gymnasium
import pytest

IDS = ("World", "PointNav", "ImageNav", "Explore", "Follow")


def make(name="World", **options):
    return gymnasium.make(f"inspatio_envs:inspatio/{name}-v0", **{"size_px": (48, 80), "generator": "warp"} | options)


@pytest.fixture(scope="session", autouse=True)
def open_env():
    env = make("PointNav")
    env.reset(seed=0)
    return env
