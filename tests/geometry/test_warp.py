"""Forward warp: exact at the identity, independent of the batch, fast equals plain, right on known scenes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from inspatio_sim.geometry.warp import forward_warp, forward_warp_into
from inspatio_sim.geometry.warp_plain import forward_warp_plain
from inspatio_sim.motion.camera import Intrinsics, pose_from

CAMERA = Intrinsics.from_fov(1.1, 40, 24)


def frame(seed: int, camera: Intrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Random colours over smooth depth with a box in front and a hole in the depth."""
    rng = np.random.default_rng(seed)
    height, width = camera.height_px, camera.width_px
    rgb_u8 = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    v, u = np.mgrid[:height, :width]
    depth_m = (3 + 0.5 * np.sin(u / 7) + 0.4 * np.cos(v / 5)).astype(np.float32)
    depth_m[5:12, 8:20] = 1.0
    depth_m[15:18, 30:34] = 0
    return rgb_u8, depth_m


def plain(rgb_u8, depth_m, source, target, T_target_source):
    as_batch = [
        torch.as_tensor(np.asarray(x))[None] for x in (rgb_u8, depth_m, source.K_px, target.K_px, T_target_source)
    ]
    return [x[0].numpy() for x in forward_warp_plain(*as_batch, height_px=target.height_px, width_px=target.width_px)]


small_motions = st.tuples(*[st.floats(-0.5, 0.5)] * 6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), motion=small_motions, fov_rad=st.sampled_from([1.3, 0.5]))
def test_fast_equals_plain(seed, motion, fov_rad):
    rgb_u8, depth_m = frame(seed)
    target = Intrinsics.from_fov(fov_rad, 36, 30)  # the narrow one magnifies
    T = pose_from(Rotation.from_rotvec(motion[:3]).as_matrix(), motion[3:])
    fast = forward_warp(rgb_u8, depth_m, CAMERA, target, T)
    image, depth, known = plain(rgb_u8, depth_m, CAMERA, target, T)
    assert (fast.is_known != known).mean() <= 0.003  # weights at the threshold, to the last bit
    same = fast.is_known == known
    assert (np.abs(fast.rgb_u8.astype(int) - image)[same] > 1).mean() <= 0.003
    assert (np.abs(fast.depth_m - depth)[same] > 1e-4).mean() <= 0.003


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), pose_motion=small_motions)
def test_identity_is_exact(seed, pose_motion):
    rgb_u8, depth_m = frame(seed)
    pose = pose_from(Rotation.from_rotvec(pose_motion[:3]).as_matrix(), pose_motion[3:])
    T = np.linalg.inv(pose) @ pose  # the identity up to rounding, as in a world
    render = forward_warp(rgb_u8, depth_m, CAMERA, CAMERA, T)
    assert np.array_equal(render.is_known, depth_m > 0)
    assert np.array_equal(render.rgb_u8[depth_m > 0], rgb_u8[depth_m > 0])
    np.testing.assert_allclose(render.depth_m, depth_m, rtol=1e-6)


def test_a_frame_is_independent_of_its_batch():
    (rgb_a, depth_a), (rgb_b, depth_b) = frame(0), frame(1)
    T = pose_from(t_m=[0.2, 0, -0.1])
    K = torch.from_numpy(CAMERA.K_px)[None]
    pair = forward_warp_plain(
        torch.from_numpy(np.stack([rgb_a, rgb_b])),
        torch.from_numpy(np.stack([depth_a, 20 * depth_b])),
        K.expand(2, 3, 3),
        K.expand(2, 3, 3),
        torch.from_numpy(T)[None].expand(2, 4, 4),
        CAMERA.height_px,
        CAMERA.width_px,
    )
    alone = plain(rgb_a, depth_a, CAMERA, CAMERA, T)
    for together, single in zip(pair, alone, strict=True):
        assert np.array_equal(together[0].numpy(), single)


def test_sideways_motion_shifts_a_plane_by_its_disparity():
    camera = Intrinsics(fx_px=20, fy_px=20, cx_px=20, cy_px=12, width_px=40, height_px=24)
    rgb_u8, _ = frame(0)
    depth_m = np.full((24, 40), 2.0, np.float32)
    render = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=[0.3, 0, 0]))  # 20 * 0.3 / 2 = 3 px
    assert np.array_equal(render.rgb_u8[:, 3:], rgb_u8[:, :-3])
    assert not render.is_known[:, :3].any()


def test_near_surface_hides_far_one_without_leaks_or_growth():
    camera = Intrinsics(fx_px=20, fy_px=20, cx_px=20, cy_px=12, width_px=40, height_px=24)
    depth_m = np.full((24, 40), 4.0, np.float32)
    depth_m[:, 10:20] = 1.0
    rgb_u8 = np.zeros((24, 40, 3), np.uint8)
    rgb_u8[:, 10:20] = 255
    render = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=[0.12, 0, 0]))  # 2.4 px near, 0.6 px far
    row = render.rgb_u8[12, :, 0]
    assert set(np.unique(row[render.is_known[12]])) == {0, 255}  # nothing between: no leak
    assert (row == 255).sum() == 10  # as wide as before


def test_points_behind_the_camera_are_not_seen():
    rgb_u8, depth_m = frame(0)
    render = forward_warp(rgb_u8, depth_m, CAMERA, CAMERA, pose_from(t_m=[0, 0, -10.0]))
    assert not render.is_known.any()


def test_coming_nearer_leaves_no_pinholes_in_a_surface():
    camera = Intrinsics(fx_px=20, fy_px=20, cx_px=20, cy_px=12, width_px=40, height_px=24)
    rgb_u8, _ = frame(0)
    depth_m = np.full((24, 40), 2.0, np.float32)
    render = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=[0, 0, -0.9]))  # 1.8 times larger
    assert render.is_known[1:-1, 1:-1].all()  # a gap at the border has no neighbour beyond
    np.testing.assert_allclose(render.depth_m[render.is_known], 1.1, rtol=1e-6)


def table_in_a_room(camera: Intrinsics, t_m: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red table top 0.3 m below the eye, a blue floor and wall; all moved by `t_m`. Colours, depth, is_table."""
    v, u = np.mgrid[: camera.height_px, : camera.width_px]
    x, y = (u - camera.cx_px) / camera.fx_px, np.maximum((v - camera.cy_px) / camera.fy_px, 1e-9)
    x_m, y_m, z_m = t_m
    table_m, floor_m = (0.3 + y_m) / y, (1.5 + y_m) / y
    is_table = (abs(table_m - z_m - 1.4) < 0.8) & (abs(table_m * x - x_m + 0.4) < 0.5)
    depth_m = np.where(is_table, table_m, np.minimum(floor_m, 4 + z_m)).astype(np.float32)
    return np.where(is_table[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8), depth_m, is_table


@pytest.mark.parametrize("t_m", [(0, 0, -0.4), (0.25, 0, -0.3), (0.3, 0.1, -0.4)])
def test_a_grazing_surface_seen_closer_has_no_gaps_and_hides_what_is_behind(t_m):
    camera = Intrinsics.from_fov(1.4, 160, 96)
    rgb_u8, depth_m, _ = table_in_a_room(camera, (0, 0, 0))
    render = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=t_m))
    true_u8, true_m, is_table = table_in_a_room(camera, t_m)
    is_inner = np.asarray(binary_erosion(is_table, iterations=3), dtype=bool)
    assert is_inner.sum() > 1000
    assert render.is_known[is_inner].all()
    assert np.array_equal(render.rgb_u8[is_inner], true_u8[is_inner])
    np.testing.assert_allclose(render.depth_m[is_inner], true_m[is_inner], rtol=0.05)


@pytest.mark.parametrize("far_m", [1.2, 4.0])
def test_magnification_does_not_bridge_two_surfaces(far_m):
    depth_m = np.full((24, 40), far_m, np.float32)
    depth_m[6:18, 12:28] = 1.0
    rgb_u8 = np.where(depth_m[..., None] == 1, [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    render = forward_warp(rgb_u8, depth_m, CAMERA, CAMERA, pose_from(t_m=[0.2, 0, -0.5]))
    is_near = render.rgb_u8[..., 0] == 255
    is_far = render.rgb_u8[..., 2] == 255
    assert np.array_equal(is_near | is_far, render.is_known)  # no mixed colours
    np.testing.assert_allclose(render.depth_m[is_near], 0.5, rtol=1e-6)
    np.testing.assert_allclose(render.depth_m[is_far], far_m - 0.5, rtol=1e-6)
    assert is_near[2:-2, 18:].all()  # twice as large, without gaps
    assert not render.is_known[6:-6, 16].any()  # what it hid before


def test_mixed_colours_beside_a_near_thing_stay_with_it_or_go():
    """The far pixel beside the box has half its colour: shown at the identity, gone once the two part."""
    camera = Intrinsics(fx_px=20, fy_px=20, cx_px=20, cy_px=12, width_px=40, height_px=24)
    depth_m = np.full((24, 40), 8.0, np.float32)
    depth_m[:, 10:20] = 1.0
    rgb_u8 = np.zeros((24, 40, 3), np.uint8)
    rgb_u8[:, 10:20] = 255
    rgb_u8[:, [9, 20]] = 127
    still = forward_warp(rgb_u8, depth_m, camera, camera, np.eye(4))
    assert np.array_equal(still.rgb_u8, rgb_u8)
    moved = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=[-0.4, 0, 0]))  # 8 px near, 1 px far
    assert set(np.unique(moved.rgb_u8[moved.is_known])) == {0, 255}


def test_threads_change_nothing():
    """A large frame, warped by several threads or by one."""
    camera = Intrinsics.from_fov(1.1, 320, 180)
    rgb_u8, depth_m = frame(0, camera)
    T = pose_from(Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), [0.2, 0.1, -0.4])
    several = forward_warp(rgb_u8, depth_m, camera, camera, T)
    result = np.empty((180, 320, 3), np.uint8), np.empty((180, 320), np.float32), np.empty((180, 320), np.bool_)
    forward_warp_into(rgb_u8, depth_m, camera, camera, T, result, has_all_threads=False)
    for a, b in zip((several.rgb_u8, several.depth_m, several.is_known), result, strict=True):
        assert np.array_equal(a, b)
