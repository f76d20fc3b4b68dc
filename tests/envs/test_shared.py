"""Envs of one process share what is heavy, and let go of it."""

import gc

import numpy as np
import pytest
from inspatio_envs import shared

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.demo import write_demo_clip
from tests.envs.conftest import make


def test_clips_and_generators_are_there_once():
    first, second = make().unwrapped, make("Explore").unwrapped
    first.reset(seed=0)
    second.reset(seed=0)
    assert first.place is second.place
    assert first.world.generator is second.world.generator
    assert first.world is not second.world
    other = make(max_frames=5).unwrapped
    other.reset(seed=0)
    assert other.place is not first.place
    assert other.world.generator is first.world.generator


def test_a_clip_can_start_later(tmp_path):
    write_demo_clip(tmp_path / "clip", num_frames=5, size_px=(32, 48))
    whole = shared.place(str(tmp_path / "clip"), (32, 48)).reference
    later = shared.place(str(tmp_path / "clip"), (32, 48), start_frame=2).reference
    np.testing.assert_array_equal(later.frames_u8, whole.frames_u8[2:])
    with pytest.raises(InputError, match="start_frame=2: want 0 without a video"):
        make(start_frame=2)
    with pytest.raises(InputError, match="start_frame=-1: want a whole number"):
        make(start_frame=-1)


def test_nothing_is_read_before_the_first_reset():
    gc.collect()
    before = len(shared._places)
    env = make(max_frames=6)
    assert len(shared._places) == before
    env.reset(seed=0)
    assert len(shared._places) == before + 1
    env.close()
    gc.collect()
    assert len(shared._places) == before


@pytest.mark.slow
def test_star_lives_in_the_same_env():
    env = make("PointNav", size_px=(96, 160), generator="star", preset="tiny", max_frames=24)
    _, info = env.reset(seed=0)
    assert info["time_s"] == pytest.approx(8 / 12)
    *_, info = env.step(1)
    assert info["time_s"] == pytest.approx(20 / 12)
    snapshot = env.unwrapped.snapshot()
    onward = env.step(5)
    env.unwrapped.restore(snapshot)
    assert (env.step(5)[0]["rgb"] == onward[0]["rgb"]).all()


def test_wrong_reconstruct_options_are_named():
    env = make(reconstruct_options={"method": "sfm", "max_keyframe": 9})
    with pytest.raises(
        InputError, match="reconstruct option max_keyframe=9: no option of method sfm: want method, scale"
    ):
        env.reset(seed=0)
    with pytest.raises(InputError, match="reconstruct_options='sfm': want a dict"):
        make(reconstruct_options="sfm")
