import dataclasses

import cv2
import numpy as np
import pycolmap
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from benchmarks.reconstruction import depth_error_share, trajectory_error_share
from inspatio_sim.camera import Intrinsics, inverse, pose_from
from inspatio_sim.errors import InputError
from inspatio_sim.reconstruct import reconstruct
from inspatio_sim.reconstruct.colmap_worker import write_model
from inspatio_sim.reconstruct.gravity import gravity_direction, leveling_rotation
from inspatio_sim.reconstruct.motion import camera_motion, first_showings, follow_points
from inspatio_sim.reconstruct.sfm import (
    SfmReconstructor,
    SparseModel,
    in_words,
    longest_stretch,
    solve_pose,
    with_gaps_filled,
)
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.video import Clip, read_clip


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


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([textured(120, 200)] * 6, "all 6 frames show the same picture, the camera stands still"),
        ([textured(120, 200, seed) for seed in (0, 0, 0, 1, 1)], "5 frames show 2 pictures, again and again"),
        ([np.zeros((120, 200), np.uint8), *[np.full((120, 200), 99, np.uint8)] * 2], "3 frames show 2 pictures"),
        ([textured(120, 200, seed) for seed in range(6)], "nothing in the picture can be followed"),
        ([textured(120, 400)[:, 8 * i : 8 * i + 200] for i in range(8)], "no parallax: the camera only turns"),
        ([textured(20, 800, seed) for seed in range(4)], "800x20 px: want at least 16 px a side for optical flow"),
    ],
)
def test_clips_without_parallax_are_refused_with_the_reason(frames, message):
    with pytest.raises(InputError, match=f"^made up: .*{message}"):
        reconstruct(clip_of(frames), "sfm")


def test_a_picture_shown_again_is_the_same_picture():
    walk = [textured(120, 300)[:, 3 * i : 3 * i + 200] for i in range(3)]
    noise = np.random.default_rng(0).integers(-2, 3, (120, 200))  # what an encoder leaves
    again = [np.uint8(np.clip(frame.astype(int) + noise, 0, 255)) for frame in walk]
    clip = clip_of([walk[0], again[0], walk[1], walk[2], again[2], walk[2], walk[0]])
    np.testing.assert_array_equal(first_showings(clip.frames_u8), [0, 0, 2, 3, 3, 3, 6])


def test_a_small_thing_that_moves_is_no_repeat():
    frames = [np.zeros((120, 200), np.uint8) for _ in range(3)]
    for i, frame in enumerate(frames):
        frame[50:60, 20 * i : 20 * i + 10] = 200
    np.testing.assert_array_equal(first_showings(clip_of(frames).frames_u8), [0, 1, 2])


def test_too_few_frames_are_refused():
    with pytest.raises(InputError, match="2 frames: want at least 3"):
        SfmReconstructor().reconstruct(clip_of([textured(120, 200)] * 2))


def test_frames_that_share_nothing_are_refused(monkeypatch):
    frames = [textured(120, 200, seed) for seed in range(4)]
    monkeypatch.setattr("inspatio_sim.reconstruct.sfm._refuse_without_parallax", lambda clip: None)
    with pytest.raises(InputError, match="placed 0 of 4 keyframes: no two of them show"):
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


def test_frames_are_given_poses_in_small_gaps_only():
    placed = np.array([2, 3, 5, 9, 10, 11, 12, 14])
    assert longest_stretch(placed, max_gap=1) == range(9, 15)
    assert longest_stretch(placed, max_gap=0) == range(9, 13)
    assert longest_stretch(placed, max_gap=3) == range(2, 15)
    poses = np.stack([pose_from(t_m=[x, 0, 0]) for x in (0.0, 99.0, 99.0, 3.0)])
    is_placed = np.array([True, False, False, True])
    filled = with_gaps_filled(poses, is_placed, np.array([10, 11, 12, 13]))
    np.testing.assert_allclose(filled[:, 0, 3], [0, 1, 2, 3])
    np.testing.assert_array_equal(filled[is_placed], poses[is_placed])


def test_frames_in_words():
    assert in_words(np.array([3])) == "3"
    assert in_words(np.array([0, 1, 2, 5, 8, 9])) == "0 to 2, 5, 8 to 9"
    assert in_words(np.arange(0, 20, 2)) == "0, 2, 4, 6, 8, ..."


def test_a_model_without_points_is_written_and_refused_in_a_sentence(tmp_path):
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
    for image_id in model.reg_image_ids():
        model.image(image_id).name = f"{image_id:06d}.bmp"
    for point_id in model.point3D_ids():
        model.delete_point3D(point_id)
    write_model(tmp_path / "model.npz", model, inlier_share=0.0)
    with np.load(tmp_path / "model.npz") as found:
        assert (found["xyz"].shape, found["xy_px"].shape, found["seen_in"].shape) == ((0, 3), (0, 2), (0,))


def sparse_model(clip: Clip, keyframe_idx: list[int]) -> SparseModel:
    """What COLMAP would find in the demo room if it made no mistake: the corners of its keyframes, by their depth."""
    assert clip.intrinsics is not None
    assert clip.depth_m is not None
    assert clip.T_world_camera is not None
    K_px, xyz, seen_in, xy_px = clip.intrinsics.K_px, [], [], []
    for row, i in enumerate(keyframe_idx):
        grey = cv2.cvtColor(clip.frames_u8[i], cv2.COLOR_RGB2GRAY)
        corners = cv2.goodFeaturesToTrack(grey, 300, 0.01, 5)[:, 0]
        depth_m = clip.depth_m[i][tuple(np.rint(corners[:, ::-1]).astype(int).T)]
        rays = np.insert(corners, 2, 1, 1) @ np.linalg.inv(K_px).T
        xyz.append((depth_m[:, None] * rays) @ clip.T_world_camera[i, :3, :3].T + clip.T_world_camera[i, :3, 3])
        seen_in.append(np.full(len(corners), row))
        xy_px.append(corners.astype(np.float64))
    return SparseModel(
        keyframe_idx=np.array(keyframe_idx),
        T_camera_world=inverse(clip.T_world_camera[keyframe_idx]),
        intrinsics=clip.intrinsics,
        xyz=np.concatenate(xyz),
        seen_in=np.concatenate(seen_in),
        point_idx=np.arange(len(np.concatenate(xyz))),
        xy_px=np.concatenate(xy_px),
        reprojection_error_px=0.1,
        inlier_share=1.0,
    )


def test_what_the_model_does_not_show_is_left_out_and_said(monkeypatch):
    room = demo_clip(8, (72, 120), supersample=1)
    elsewhere = clip_of([textured(72, 120, seed) for seed in range(4)]).frames_u8
    frames_u8 = np.concatenate([elsewhere[:1], room.frames_u8, elsewhere[1:3]])
    frames_u8[5] = elsewhere[3]
    clip = Clip(frames_u8=frames_u8, fps=10.0, source="room and others", intrinsics=room.intrinsics, start_frame=100)
    model = sparse_model(room, [0, 2, 5, 7])
    model = dataclasses.replace(model, keyframe_idx=model.keyframe_idx + 1)
    monkeypatch.setattr("inspatio_sim.reconstruct.sfm.run_colmap", lambda *_: model)
    monkeypatch.setattr("inspatio_sim.reconstruct.sfm._refuse_without_parallax", lambda clip: None)
    result = SfmReconstructor(min_registered_share=0.1).reconstruct(clip)
    assert result.kept == range(1, 9)
    assert result.depth_units.shape == (8, 72, 120)
    assert trajectory_error_share(result.T_world_camera, room.T_world_camera) <= 0.02
    said = " | ".join(result.warnings)
    assert "3 of 11 frames are left out, because the camera was not found there: 100, 109 to 110" in said
    assert "1 of 11 frames have poses interpolated between those around them: 105" in said
    clip = dataclasses.replace(clip, frames_u8=np.concatenate([frames_u8, elsewhere[::-1]]))
    with pytest.raises(
        InputError, match="placed 8 of 15 frames without a gap: want 67%; take these .--start-frame 101 --max-frames 8"
    ):
        SfmReconstructor(min_registered_share=0.1).reconstruct(clip)


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


@pytest.mark.slow
def test_repeated_frames_change_nothing():
    clip = Clip(frames_u8=demo_clip(8, (96, 160), supersample=1).frames_u8, fps=10.0, source="made up")
    once = SfmReconstructor().reconstruct(clip)
    thrice = SfmReconstructor().reconstruct(dataclasses.replace(clip, frames_u8=clip.frames_u8.repeat(3, 0)))
    np.testing.assert_array_equal(thrice.T_world_camera, once.T_world_camera.repeat(3, 0))
    np.testing.assert_array_equal(thrice.depth_units, once.depth_units.repeat(3, 0))
    assert once.kept == range(8)
    assert thrice.kept == range(24)


@pytest.mark.slow
def test_a_cut_to_another_place_is_left_out(test_data):
    clip = read_clip(test_data / "cases" / "clips" / "cut3.mp4", size_px=(160, 288))
    result = SfmReconstructor().reconstruct(clip)
    assert result.kept == range(32)
    assert result.warnings[0].endswith("the camera was not found there: 32 to 39")
