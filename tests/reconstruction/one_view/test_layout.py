"""Layout is a prior: it is tested on pictures that fulfil it, drawn by a camera of known tilt."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspatio_sim.clips.video import Clip, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation
from inspatio_sim.reconstruction.one_view.layout import LayoutReconstructor, with_moving_things
from inspatio_sim.reconstruction.scale import ScaleRequest, camera_height_units, to_reference

H, W = 240, 416
CAMERA = Intrinsics.from_fov(np.deg2rad(60), W, H)
WALL_DISTANCE = 8.0  # camera heights
DATA = os.environ.get("INSPATIO_TEST_DATA")


def world_rays(tilt_rad: float) -> np.ndarray:
    y_px, x_px = np.mgrid[:H, :W]
    rays = np.stack([(x_px - CAMERA.cx_px) / CAMERA.fx_px, (y_px - CAMERA.cy_px) / CAMERA.fy_px, np.ones((H, W))], -1)
    return rays @ tilted_rotation(tilt_rad).T


def street(tilt_rad: float = 0.15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey road with white stripes, a brick-red wall across it, blue sky. (picture, exact depth, is_sky)"""
    rays = world_rays(tilt_rad)
    with np.errstate(divide="ignore"):
        ground = np.where(rays[..., 1] > 1e-6, 1 / rays[..., 1], np.inf)
        wall = np.where(rays[..., 2] > 1e-6, WALL_DISTANCE / rays[..., 2], np.inf)
    is_ground = ground < wall
    depth = np.minimum(ground, wall)
    points = rays * np.where(np.isfinite(depth), depth, 0)[..., None]
    is_sky = ~is_ground & (points[..., 1] < -0.7)
    rng = np.random.default_rng(0)
    picture = np.empty((H, W, 3))
    picture[is_ground] = [105, 105, 108]
    picture[is_ground & (np.abs(np.abs(points[..., 0]) - 1.5) < 0.12)] = [235, 235, 235]
    picture[~is_ground] = [150, 70, 50]
    picture[~is_ground & (np.floor(points[..., 0] * 2) % 2 == 0)] = [130, 55, 45]
    picture[~is_sky] += rng.normal(0, 6, (int((~is_sky).sum()), 1))
    picture[is_sky] = [120, 170, 240]
    return np.clip(picture, 0, 255).astype(np.uint8), depth, is_sky


def clip_of(*frames_u8: np.ndarray) -> Clip:
    return Clip(frames_u8=np.stack(frames_u8), fps=10.0, source="street.png")


@pytest.mark.parametrize("tilt_rad", [0.05, 0.15, 0.3])
def test_horizon_is_found_from_the_road(tilt_rad):
    horizon = find_horizon(street(tilt_rad)[0], CAMERA)
    assert "vanishing point" in horizon.note
    assert horizon.tilt_rad == pytest.approx(tilt_rad, abs=np.deg2rad(1.5))
    assert horizon.line_share > 0.3


def test_street_has_ground_wall_and_sky():
    picture, true_depth, is_sky = street()
    result = LayoutReconstructor().reconstruct(clip_of(picture))
    depth = result.depth_units[0]
    error = np.abs(depth / true_depth - 1)
    near = (true_depth < 6) & ~is_sky  # far ground hangs on a fraction of a degree of tilt
    assert np.median(error[near]) < 0.05
    is_wall = (true_depth > WALL_DISTANCE * 0.9) & ~is_sky
    assert np.median(error[is_wall]) < 0.25
    assert is_sky.mean() > 0.1
    assert np.median(depth[is_sky]) > 2 * np.median(depth[is_wall])
    assert depth.min() > 0
    assert not result.is_metric
    assert np.allclose(result.T_world_camera[0, :3, 3], 0)


def test_it_says_that_it_is_a_prior():
    warnings = " ".join(LayoutReconstructor().reconstruct(clip_of(street()[0])).warnings)
    for word in ("guess", "not a measurement", "focal length assumed (60 degrees", "horizon from lines"):
        assert word in warnings


def test_the_unit_is_the_camera_height():
    clip = clip_of(street()[0])
    result = LayoutReconstructor().reconstruct(clip)
    assert camera_height_units(result) == pytest.approx(1.0, rel=0.02)
    reference = to_reference(clip, result, method="layout", reason="", scale=ScaleRequest(camera_height_m=1.6))
    assert reference.scale.metres_per_unit == pytest.approx(1.6, rel=0.02)


def test_known_intrinsics_are_kept():
    camera = Intrinsics.from_fov(1.3, W, H)
    clip = Clip(frames_u8=street()[0][None], fps=10.0, source="s", intrinsics=camera)
    result = LayoutReconstructor().reconstruct(clip)
    assert result.intrinsics == camera
    assert not any("focal" in warning for warning in result.warnings)


def test_static_background_is_stable_and_a_walker_stands_in_front():
    picture = street()[0]
    frames = []
    for i in range(8):
        frame = picture.copy()
        cv2.rectangle(frame, (40 + 45 * i, 90), (58 + 45 * i, 180), (250, 220, 30), -1)  # a person, feet on row 180
        frames.append(frame)
    result = LayoutReconstructor().reconstruct(clip_of(*frames))
    plain = LayoutReconstructor().reconstruct(clip_of(picture)).depth_units[0]
    for i, depth in enumerate(result.depth_units):
        body = depth[95:175, 42 + 45 * i : 56 + 45 * i]
        feet = plain[180, 49 + 45 * i]
        assert np.abs(body / feet - 1).max() < 0.1  # upright, at the distance of the feet
        assert np.all(body[:20] < 0.8 * plain[95:115, 42 + 45 * i : 56 + 45 * i])  # in front of the wall
    still = np.ones((H, W), bool)
    still[80:190] = False
    assert np.all(np.ptp(result.depth_units[:, still], axis=0) == 0)


def test_moving_things_never_go_behind_the_background():
    background = np.tile(np.linspace(9, 1, 60, dtype=np.float32)[:, None], (1, 80))
    moving = np.zeros((60, 80), bool)
    moving[10:40, 20:40] = True
    depth = with_moving_things(background, moving)
    assert np.all(depth <= background)
    np.testing.assert_allclose(depth[moving], background[39, 0], rtol=0.05)
    np.testing.assert_array_equal(depth[~moving], background[~moving])


def test_one_surface_is_seen_from_above():
    rng = np.random.default_rng(0)
    table = np.clip(rng.normal(180, 8, (H, W, 3)), 0, 255).astype(np.uint8)
    cv2.circle(table, (200, 110), 40, (190, 20, 40), -1)
    result = LayoutReconstructor().reconstruct(clip_of(table))
    assert any("45 degrees down" in warning for warning in result.warnings)
    depth = result.depth_units[0]
    assert np.all(np.diff(depth[:, 5]) < 0)  # a plane: always nearer further down
    assert depth[90, 200] < 0.9 * depth[90, 5]  # the ball stands up from it
    assert depth[149, 200] == pytest.approx(depth[149, 5], rel=0.05)  # and touches it below


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_picture_still_gives_a_usable_plane(value):
    depth = LayoutReconstructor().reconstruct(clip_of(np.full((H, W, 3), value, np.uint8))).depth_units
    assert np.isfinite(depth).all()
    assert depth.min() > 0


@pytest.mark.parametrize("size", [(8, 8), (9, 200), (200, 9)])
def test_small_and_narrow_pictures(size):
    rng = np.random.default_rng(0)
    depth = LayoutReconstructor().reconstruct(clip_of(rng.integers(0, 256, (*size, 3), np.uint8))).depth_units
    assert depth.shape == (1, *size)
    assert depth.min() > 0


def test_same_clip_same_bytes():
    clip = clip_of(street()[0], street()[0])
    first, second = (LayoutReconstructor().reconstruct(clip) for _ in range(2))
    assert first.depth_units.tobytes() == second.depth_units.tobytes()


def test_absurd_field_of_view_is_refused():
    with pytest.raises(InputError, match="horizontal_fov_rad"):
        LayoutReconstructor(horizontal_fov_rad=4.0)


@pytest.mark.skipif(DATA is None, reason="INSPATIO_TEST_DATA is not set")
def test_a_real_table_top():
    """The table's edges tell the tilt; the black room behind is far; the table is a plane below the camera."""
    clip = read_clip(Path(str(DATA)) / "videos" / "coffee.mp4", size_px=(240, 416), max_frames=40)
    result = LayoutReconstructor().reconstruct(clip)
    tilt_rad = np.arcsin(result.T_world_camera[0, 1, 2])
    assert np.deg2rad(30) < tilt_rad < np.deg2rad(48)
    depth = np.median(result.depth_units, axis=0)
    assert depth[20, 10] > 2 * depth[200, 208]  # the dark corner against the table in front
    assert result.quality["ground_share"] > 0.5
    assert camera_height_units(result) == pytest.approx(1.0, rel=0.05)
