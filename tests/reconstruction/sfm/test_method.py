import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from benchmarks.reconstruction import depth_error_share, trajectory_error_share
from inspatio_sim.clips.video import Clip, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.reconstruction.motion import camera_motion, follow_points
from inspatio_sim.reconstruction.sfm.gravity import gravity_direction, leveling_rotation
from inspatio_sim.reconstruction.sfm.method import SfmReconstructor, solve_pose
from inspatio_sim.scenes.demo import demo_clip


def textured(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height_px, width_px)), 1.5)
    return np.uint8(np.clip(128 + 120 * noise / np.abs(noise).max() * 2, 0, 255))


def clip_of(frames: list[np.ndarray]) -> Clip:
    return Clip(frames_u8=np.stack([np.repeat(f[..., None], 3, 2) for f in frames]), fps=10.0, source="made up")


@pytest.fixture(scope="module")
def moving_clip() -> Clip:
    return demo_clip(24, (144, 240))


@pytest.fixture(scope="module")
def bare_clip(moving_clip: Clip) -> Clip:
    """The clip as a camera would give it: pictures only."""
    return dataclasses.replace(moving_clip, depth_m=None, T_world_camera=None, intrinsics=None)


@pytest.mark.parametrize(
    ("name", "kind"), [("apple.mp4", "moving"), ("coffee.mp4", "static"), ("tokyo_walk.mp4", "moving")]
)
def test_camera_motion_of_real_clips(test_data, name, kind):
    motion = camera_motion(read_clip(test_data / "videos" / name, size_px=(240, 416)))
    assert motion.kind == kind
    assert motion.is_moving == (kind == "moving")
    assert (motion.static_share > 0.5) == (kind == "static")


def test_camera_that_pans_over_a_picture_has_no_parallax():
    wide = textured(200, 500)
    motion = camera_motion(clip_of([wide[:, 6 * i : 6 * i + 320] for i in range(20)]))
    assert motion.kind == "rotating"
    assert motion.homography_share > 0.95


def test_camera_motion_of_blank_frames_is_static():
    motion = camera_motion(clip_of([np.zeros((60, 80), np.uint8)] * 5))
    assert motion.kind == "static"
    assert motion.num_tracks == 0


def test_follow_points_follows_a_shift():
    wide = textured(120, 300)
    points = np.array([[100, 60], [120, 40], [60, 80]], np.float32)
    grey_u8 = np.stack([wide[:, 3 * i : 3 * i + 200] for i in range(5)])
    end_px, survived = follow_points(grey_u8, points)
    np.testing.assert_array_equal(survived, [0, 1, 2])
    np.testing.assert_allclose(end_px, points - [12, 0], atol=0.05)


def test_still_camera_is_refused_with_advice():
    with pytest.raises(InputError, match="camera stands still.*use method layout"):
        SfmReconstructor().reconstruct(clip_of([textured(120, 200)] * 6))


def test_too_few_frames_are_refused():
    with pytest.raises(InputError, match="2 frames: want at least 3"):
        SfmReconstructor().reconstruct(clip_of([textured(120, 200)] * 2))


def test_frames_that_share_nothing_are_refused(monkeypatch):
    frames = [textured(120, 200, seed) for seed in range(4)]
    monkeypatch.setattr("inspatio_sim.reconstruction.sfm.method._refuse_without_parallax", lambda clip: None)
    with pytest.raises(InputError, match="structure from motion found no two frames"):
        SfmReconstructor().reconstruct(clip_of(frames))


@pytest.mark.parametrize("options", [{"max_keyframes": 2}, {"side_px": 10}, {"min_registered_share": 0.0}])
def test_options_are_checked(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SfmReconstructor(**options)


def test_solve_pose_finds_the_camera_among_outliers():
    rng = np.random.default_rng(0)
    K_px = Intrinsics.from_fov(1.2, 640, 360).K_px
    T_camera_world = pose_from(Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), [0.3, -0.1, 0.2])
    xyz = rng.uniform([-2, -1, 4], [2, 1, 8], (200, 3))
    projected = (xyz @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]) @ K_px.T
    xy_px = projected[:, :2] / projected[:, 2:]
    xy_px[:40] += rng.uniform(20, 60, (40, 2))
    found = solve_pose(xyz, xy_px, K_px, np.eye(4))
    assert found is not None
    np.testing.assert_allclose(found, T_camera_world, atol=1e-6)
    assert solve_pose(xyz[:5], xy_px[:5], K_px, np.eye(4)) is None


def test_gravity_is_the_ground_normal_when_the_camera_looks_down():
    rng = np.random.default_rng(0)
    T_world_camera = np.stack([pose_from(Rotation.from_euler("x", -45, degrees=True).as_matrix())] * 5)
    T_world_camera[:, 0, 3] = np.linspace(0, 1, 5)
    ground = np.stack([rng.uniform(-3, 3, 400), np.full(400, 1.5), rng.uniform(1, 5, 400)], 1)
    clutter = rng.uniform([-3, -1, 1], [3, 1.4, 5], (300, 3))
    down = gravity_direction(T_world_camera, np.concatenate([ground, clutter]))
    np.testing.assert_allclose(down, [0, 1, 0], atol=1e-6)


def test_gravity_without_ground_is_across_level_cameras():
    yaws = np.linspace(-1, 1, 9)
    tilt = Rotation.from_euler("x", -20, degrees=True)  # all look down a little: the mean y axis is 20 deg off
    T_world_camera = np.stack([pose_from((Rotation.from_rotvec([0, a, 0]) * tilt).as_matrix()) for a in yaws])
    down = gravity_direction(T_world_camera, np.zeros((0, 3)))
    assert np.degrees(np.arccos(down[1])) < 3


def test_leveling_rotation_turns_down_into_y():
    down, forward = np.array([0.1, 0.9, 0.3]), np.array([0.2, 0.1, 1.0])
    R = leveling_rotation(down, forward)
    np.testing.assert_allclose(R @ down, [0, np.linalg.norm(down), 0], atol=1e-12)
    np.testing.assert_allclose((R @ forward)[0], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(R), 1)
    np.testing.assert_allclose(np.linalg.det(leveling_rotation(down, down)), 1)


@pytest.mark.slow
def test_demo_clip_comes_back(moving_clip, bare_clip):
    stages = []
    result = SfmReconstructor().reconstruct(bare_clip, lambda what, share_done: stages.append((what, share_done)))
    truth = moving_clip.T_world_camera
    assert trajectory_error_share(result.T_world_camera, truth) <= 0.02
    assert depth_error_share(result.depth_units, moving_clip.depth_m) <= 0.08
    np.testing.assert_allclose(result.T_world_camera[0, :3, 3], 0, atol=1e-9)
    # the demo's first camera is level
    assert np.degrees(np.arccos(result.T_world_camera[0, 1, 1])) < 3
    assert result.quality["registered_share"] == 1
    assert result.quality["reprojection_error_px"] < 0.5
    assert not result.is_metric
    shares = [share_done for _, share_done in stages]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {what for what, _ in stages} >= {"features", "matching", "mapping", "dense depth"}


@pytest.mark.slow
def test_same_clip_gives_the_same_bytes_and_known_intrinsics_are_kept(moving_clip, bare_clip):
    clip = dataclasses.replace(bare_clip, intrinsics=moving_clip.intrinsics)
    first, second = (SfmReconstructor(max_keyframes=12).reconstruct(clip) for _ in range(2))
    assert first.intrinsics == moving_clip.intrinsics
    assert first.T_world_camera.tobytes() == second.T_world_camera.tobytes()
    assert first.depth_units.tobytes() == second.depth_units.tobytes()
    assert trajectory_error_share(first.T_world_camera, moving_clip.T_world_camera) <= 0.02
