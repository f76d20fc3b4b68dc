import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.motion.camera import Intrinsics, PoseDelta
from inspatio_sim.reconstruction.panorama.equirectangular import (
    Direction,
    RangeMap,
    directions_around,
    picture_of,
    ray_lengths,
    rays_of,
)

SMALL = Intrinsics.from_fov(math.radians(90), 64, 40)


@settings(deadline=None, max_examples=25)
@given(
    fov_deg=st.floats(60, 120),
    size_px=st.tuples(st.integers(16, 200), st.integers(16, 200)).filter(lambda s: 0.4 < s[0] / s[1] < 2.5),
)
def test_views_cover_the_sphere_with_overlap(fov_deg, size_px):
    camera = Intrinsics.from_fov(math.radians(fov_deg), size_px[1], size_px[0])
    directions = directions_around(camera)
    rays = rays_of(60).reshape(-1, 3)
    times_seen = np.zeros(len(rays), int)
    for direction in directions:
        x, y, z = (rays @ direction.T_world_camera[:3, :3]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = x / z * camera.fx_px + camera.cx_px, y / z * camera.fy_px + camera.cy_px
        times_seen += (z > 0) & (u > -0.5) & (u < camera.width_px - 0.5) & (v > -0.5) & (v < camera.height_px - 0.5)
    assert times_seen.min() >= 1
    area = np.sqrt(1 - rays[:, 1] ** 2)
    assert np.average(times_seen > 1, weights=area) > 0.3  # overlap
    assert len(directions) < 150
    assert directions[0] == Direction(azimuth_rad=0.0, elevation_rad=0.0)


def test_a_view_to_the_left_is_where_a_camera_that_yawed_left_looks():
    yawed_left = PoseDelta.from_twist([0, 0, 0], [0, -math.radians(30), 0], 1.0).T_old_new  # as the word `yaw 30`
    np.testing.assert_allclose(
        Direction(azimuth_rad=-math.radians(30), elevation_rad=0).T_world_camera, yawed_left, atol=1e-12
    )
    upwards = Direction(azimuth_rad=1.0, elevation_rad=math.radians(90)).T_world_camera[:3, 2]
    np.testing.assert_allclose(upwards, [0, -1, 0], atol=1e-12)


def test_views_sample_the_sphere_where_their_rays_point():
    rays = rays_of(256)
    panorama_u8 = np.round(127.5 + 127.5 * rays).astype(np.uint8)  # the colour is the direction
    for direction in directions_around(SMALL):
        x, y = np.meshgrid((np.arange(64) - SMALL.cx_px) / SMALL.fx_px, (np.arange(40) - SMALL.cy_px) / SMALL.fy_px)
        rays_of_view = np.stack([x, y, np.ones_like(x)], -1) / ray_lengths(SMALL)[..., None]
        want = 127.5 + 127.5 * rays_of_view @ direction.T_world_camera[:3, :3].T
        seen_u8 = picture_of(panorama_u8, SMALL, direction)
        assert np.abs(seen_u8 - want).max() < 2.0


def test_fine_panoramas_are_averaged():
    stripes = np.zeros((512, 1024, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than a pixel of the view: grey, neither black nor white
    camera = Intrinsics.from_fov(math.radians(90), 32, 20)
    grey = picture_of(stripes, camera, Direction(azimuth_rad=0.3, elevation_rad=0.0))
    assert np.abs(grey.astype(float) - 127.5).max() < 40


@pytest.mark.parametrize("elevation_deg", [-60, 0, 45])
def test_depth_of_planes_is_exact(elevation_deg):
    """A box of 4 x 3 x 6 m around the camera: its walls' distances are closed-form."""
    half_m = np.array([2.0, 1.5, 3.0])
    range_m = (half_m / np.maximum(np.abs(rays_of(256)), 1e-9)).min(-1).astype(np.float32)
    direction = Direction(azimuth_rad=0.4, elevation_rad=math.radians(elevation_deg))
    depth_m = RangeMap(range_m).depth_of(SMALL, direction)
    x, y = np.meshgrid((np.arange(64) - SMALL.cx_px) / SMALL.fx_px, (np.arange(40) - SMALL.cy_px) / SMALL.fy_px)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ direction.T_world_camera[:3, :3].T  # z = 1 in the camera
    want_m = (half_m / np.maximum(np.abs(rays), 1e-9)).min(-1)
    error = np.abs(depth_m / want_m - 1)
    assert np.median(error) < 2e-4
    assert error.max() < 0.03  # in the corners of the box


def test_unknown_stays_unknown_and_edges_stay_sharp():
    range_m = np.full((128, 256), 4.0, np.float32)
    range_m[:, 140:] = 1.0
    range_m[:40] = 0.0
    depth_m = RangeMap(range_m).depth_of(SMALL, Direction(azimuth_rad=0.2, elevation_rad=0.3))
    seen_m = (depth_m * ray_lengths(SMALL))[depth_m > 0]
    assert (depth_m == 0).any()
    assert np.minimum(np.abs(seen_m - 4), np.abs(seen_m - 1)).max() < 1e-3
