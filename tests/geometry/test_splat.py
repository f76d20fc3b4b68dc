"""The z-buffered point splat: fast against plain, and known scenes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from inspatio_sim.geometry.splat import splat, splat_plain
from inspatio_sim.motion.camera import Intrinsics, pose_from

CAMERA = Intrinsics.from_fov(1.2, 64, 48)


def cloud(num_points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points_m = rng.uniform([-2, -2, -1], [2, 2, 6], (num_points, 3)).astype(np.float32)
    return points_m, rng.integers(0, 256, (num_points, 3), dtype=np.uint8)


def plain(points_m, rgb_u8, intrinsics, pose, **options):
    rgb = torch.from_numpy(rgb_u8) / 255 + 1e-4  # truncation of colour * 255 gives the byte back
    image, depth = splat_plain(
        torch.from_numpy(points_m),
        rgb,
        torch.from_numpy(intrinsics.K_px),
        torch.from_numpy(pose),
        intrinsics.height_px,
        intrinsics.width_px,
        tie_m=0.0,
        **options,
    )
    return image.numpy(), depth.numpy()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    num_points=st.integers(1, 3000),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    point_size_m=st.sampled_from([0.0, 0.02, 0.2]),
)
def test_fast_equals_plain(seed, num_points, angles, point_size_m):
    points_m, rgb_u8 = cloud(num_points, seed)
    pose = pose_from(Rotation.from_euler("xyz", angles).as_matrix(), [0.1, -0.2, 0.3])
    fast = splat(points_m, rgb_u8, CAMERA, pose, point_size_m=point_size_m)
    image, depth = plain(points_m, rgb_u8, CAMERA, pose, point_size_m=point_size_m)
    differs = np.abs(fast.depth_m - depth) > 1e-4  # float32 rounding may move an edge by one pixel
    assert differs.mean() <= 0.002
    assert (fast.rgb_u8[~differs] != image[~differs]).any(-1).mean() <= 0.002


def test_many_points_take_the_threaded_path_and_match_plain():
    points_m, rgb_u8 = cloud(50_000, 3)
    fast = splat(points_m, rgb_u8, CAMERA, np.eye(4))
    image, depth = plain(points_m, rgb_u8, CAMERA, np.eye(4))
    assert (np.abs(fast.depth_m - depth) > 1e-4).mean() <= 0.002
    assert (fast.rgb_u8 != image).any(-1).mean() <= 0.003


def test_nearest_point_wins_and_the_last_of_equals():
    points_m = np.array([[0, 0, 2], [0, 0, 1], [0, 0, 1], [0, 0, 3]], dtype=np.float32)
    rgb_u8 = np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]], dtype=np.uint8)
    camera = Intrinsics(fx_px=10, fy_px=10, cx_px=2, cy_px=1, width_px=5, height_px=3)
    render = splat(points_m, rgb_u8, camera, np.eye(4))
    assert render.index[1, 2] == 2
    assert render.rgb_u8[1, 2].tolist() == [3, 3, 3]
    assert render.depth_m[1, 2] == 1
    assert render.is_known.sum() == 1


def test_footprint_follows_distance_and_own_size():
    camera = Intrinsics(fx_px=100, fy_px=100, cx_px=20, cy_px=20, width_px=41, height_px=41)
    rgb_u8 = np.full((1, 3), 200, dtype=np.uint8)
    near = splat(np.array([[0, 0, 1.0]], np.float32), rgb_u8, camera, np.eye(4), point_size_m=0.1)
    far = splat(np.array([[0, 0, 2.0]], np.float32), rgb_u8, camera, np.eye(4), point_size_m=0.1)
    assert near.is_known.sum() == 11**2  # 0.1 m at 1 m is 10 px: 5 each way
    assert far.is_known.sum() == 5**2
    points_m = np.array([[-0.1, 0, 1.0], [0.1, 0, 1.0]], np.float32)
    both = splat(points_m, np.repeat(rgb_u8, 2, 0), camera, np.eye(4), point_size_m=np.array([0.0, 0.04], np.float32))
    assert (both.index == 0).sum() == 1
    assert (both.index == 1).sum() == 5**2


def test_nan_behind_and_out_of_range_points_are_not_seen():
    points_m = np.array([[np.nan, 0, 1], [0, 0, -1], [0, 0, 0], [0, 0, 9], [50, 0, 1]], dtype=np.float32)
    render = splat(points_m, np.zeros((5, 3), np.uint8), CAMERA, np.eye(4), far_m=5)
    assert not render.is_known.any()
    assert render.depth_m.max() == 0
    assert (render.index == -1).all()


def test_empty_cloud_renders_nothing():
    assert not splat(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), CAMERA, np.eye(4)).is_known.any()


@pytest.mark.parametrize("colour", ["nearest", "softmin"])
def test_plain_runs_in_half_precision(colour):
    points_m, rgb_u8 = cloud(500, 0)
    half, _ = plain(points_m, rgb_u8, CAMERA, np.eye(4), precision="float16", colour=colour)
    full, _ = plain(points_m, rgb_u8, CAMERA, np.eye(4), colour=colour)
    assert (half == full).all(-1).mean() > 0.9
