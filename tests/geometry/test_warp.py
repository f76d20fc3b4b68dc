"""Forward warp: exact at the identity, independent of the batch, fast equals plain, right on known scenes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from inspatio_sim.camera import Intrinsics, pose_from
from inspatio_sim.geometry.warp import forward_warp, forward_warp_batch_weighted, forward_warp_plain

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
    return [x[0].numpy() for x in forward_warp_plain(*as_batch, target.height_px, target.width_px)]


small_motions = st.tuples(*[st.floats(-0.5, 0.5)] * 6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), motion=small_motions)
def test_fast_equals_plain(seed, motion):
    rgb_u8, depth_m = frame(seed)
    target = Intrinsics.from_fov(1.3, 36, 30)
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


def test_batch_weighting_depends_on_the_batch_as_the_reference_implementation_does():
    rgb_u8, depth_m = frame(0)
    image = torch.from_numpy(rgb_u8).permute(2, 0, 1)[None].float() / 127.5 - 1
    depth = torch.from_numpy(depth_m)[None, None].clamp(min=0.5)
    K = torch.from_numpy(CAMERA.K_px)[None].float()
    T = torch.from_numpy(pose_from(t_m=[0.2, 0.03, -0.1])).float()[None]
    alone, known = forward_warp_batch_weighted(image, depth, K, K, T)
    both, _ = forward_warp_batch_weighted(
        image.repeat(2, 1, 1, 1),
        torch.cat([depth, 30 * depth]),
        K.repeat(2, 1, 1),
        K.repeat(2, 1, 1),
        T.repeat(2, 1, 1),
    )
    assert (both[0] - alone[0]).abs().max() > 1e-3
    assert (alone[0, :, known[0, 0] == 0] == -1).all()


def test_coming_nearer_leaves_no_pinholes_in_a_surface():
    camera = Intrinsics(fx_px=20, fy_px=20, cx_px=20, cy_px=12, width_px=40, height_px=24)
    rgb_u8, _ = frame(0)
    depth_m = np.full((24, 40), 2.0, np.float32)
    render = forward_warp(rgb_u8, depth_m, camera, camera, pose_from(t_m=[0, 0, -0.9]))  # 1.8 times larger
    assert render.is_known[1:-1, 1:-1].all()  # a gap at the border has no neighbour beyond
    np.testing.assert_allclose(render.depth_m[render.is_known], 1.1, rtol=1e-6)
