"""Points into many views: what `splat` shows, whatever is left out beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.geometry import keys
from inspatio_sim.geometry.keys import PointsInView, depth_and_rank, select_points, splat_keys
from inspatio_sim.geometry.splat import splat
from inspatio_sim.motion.camera import Intrinsics, se3_exp

CAMERA = Intrinsics.from_fov(1.1, 40, 24)
OPEN_M = np.full((24, 40), np.inf, np.float32)
twists = st.tuples(*[st.floats(-0.6, 0.6)] * 6).map(np.array)


def cloud(seed: int, num_points: int = 3000):
    """Points all around, one in fifty deleted, with sizes from a tenth of a pixel to several; and colours."""
    rng = np.random.default_rng(seed)
    position_m = rng.uniform(-4, 4, (num_points, 3)).astype(np.float32)
    position_m[::50] = np.nan
    size_m = (10 ** rng.uniform(-2.5, -0.5, num_points)).astype(np.float32)
    return position_m, size_m, rng.integers(0, 256, (num_points, 3), dtype=np.uint8)


def points_for(position_m, size_m, rgb_u8, poses) -> PointsInView:
    row, xyz_size_m = select_points(position_m, size_m, CAMERA, poses, 0.1)
    is_generated = np.zeros(len(position_m), bool)
    return PointsInView(rgb_u8=rgb_u8, is_generated=is_generated, row=row, xyz_size_m=xyz_size_m, near_m=0.1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100), start=twists, motion=twists, num_views=st.integers(1, 5))
def test_every_view_shows_what_a_splat_of_all_points_shows(seed, start, motion, num_views):
    position_m, size_m, rgb_u8 = cloud(seed)
    poses = se3_exp(start) @ se3_exp(np.linspace(0, 1, num_views)[:, None] * motion)
    points = points_for(position_m, size_m, rgb_u8, poses)
    assert len(points.row) < len(position_m)
    for pose in poses:
        expected = splat(position_m, rgb_u8, CAMERA, pose, near_m=0.1, point_size_m=size_m)
        depth_m, rank = depth_and_rank(splat_keys(points, CAMERA, pose, OPEN_M, has_all_threads=False))
        assert np.array_equal(~np.isnan(depth_m), expected.is_known)
        is_same = 0xFFFFFFFF - rank.astype(np.int64) == expected.index
        assert is_same[expected.is_known].mean() > 0.99  # a corner of a square, to the last bit
        is_same &= expected.is_known
        np.testing.assert_allclose(depth_m[is_same], expected.depth_m[is_same], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), start=twists)
def test_limits_hide_what_lies_behind_them_and_nothing_else(seed, start):
    """Some pixels open, some not: as if every point behind a pixel's limit had not been drawn there."""
    pose = se3_exp(start)
    points = points_for(*cloud(seed), pose[None])
    rng = np.random.default_rng(seed)
    limit_m = np.where(rng.uniform(size=(24, 40)) < 0.05, np.inf, rng.uniform(0.2, 4, (24, 40))).astype(np.float32)
    limit_m[:8] = 1.0
    free, _ = depth_and_rank(splat_keys(points, CAMERA, pose, OPEN_M, has_all_threads=False))
    limited, _ = depth_and_rank(splat_keys(points, CAMERA, pose, limit_m, has_all_threads=False))
    is_shown = free < limit_m
    assert np.array_equal(limited[is_shown], free[is_shown])
    assert np.array_equal(limited[~is_shown & np.isfinite(limit_m)], limit_m[~is_shown & np.isfinite(limit_m)])


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(keys, "SMALL_CLOUD", 100)
    points = points_for(*cloud(0), np.eye(4)[None])
    limit_m = np.full((24, 40), 2.0, np.float32)
    several, one = (splat_keys(points, CAMERA, np.eye(4), limit_m, has_all_threads=flag) for flag in (True, False))
    assert np.array_equal(several, one)


@pytest.mark.parametrize("num_points", [0, 1])
def test_little_to_show(num_points):
    position_m, size_m, rgb_u8 = (x[1 : 1 + num_points] for x in cloud(0))
    points = points_for(position_m, size_m, rgb_u8, np.eye(4)[None])
    assert len(points.row) <= num_points
