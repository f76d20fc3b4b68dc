"""MultiCamVideo: Unreal Engine's cameras become right-handed ones, pictures agree with them, and every refusal."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspatio_sim.clips.video import VideoWriter
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import check_poses, inverse
from inspatio_sim.training.data.multicam import SENSOR_MM, MultiCamClips, pose_from_unreal, read_extrinsics
from tests.training.data import dots

N, T, SIDE = 7, 4, 96
SIZE_PX = (32, 48)
FOCAL_MM = 24
POINT_CM = np.array([400.0, 30.0, 150.0])
ORDERED_PAIRS = [("cam01", "cam02"), ("cam01", "cam03"), ("cam02", "cam01"), ("cam02", "cam03")]
ORDERED_PAIRS += [("cam03", "cam01"), ("cam03", "cam02")]


def unreal_rows(yaw_rad: float, pitch_rad: float, position_cm) -> np.ndarray:
    """Unreal Engine's matrix of a camera: its x, y, z axes and its place, one a row.

    Axes are x forward, y right, z up; positive yaw turns right (x to y), positive pitch looks up. [4, 4]
    """
    cy, sy, cp, sp = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    forward, right, up = [cp * cy, cp * sy, sp], [-sy, cy, 0], [-sp * cy, -sp * sy, cp]
    return np.block([[np.array([forward, right, up]), np.zeros((3, 1))], [np.atleast_2d(position_cm), np.ones((1, 1))]])


def as_text(rows: np.ndarray) -> str:
    return " ".join("[" + " ".join(f"{value:.6g}" for value in row) + "]" for row in rows) + " "


def camera_rows(n: int, camera: int) -> np.ndarray:
    return unreal_rows(0.05 * camera - 0.02 * n, -0.01 * n, [12.0 * n, 30.0 * camera + 5 * n, 140.0 - 3 * n])


def seen_by_unreal(rows: np.ndarray, point_cm: np.ndarray) -> tuple[float, float]:
    """Where a camera sees a point, by its axes' directions alone: no handedness comes into it. (u, v)"""
    forward, right, up = rows[:3, :3] @ (point_cm - rows[3, :3])
    focal_px = FOCAL_MM / SENSOR_MM * SIDE
    return (SIDE - 1) / 2 + focal_px * right / forward, (SIDE - 1) / 2 - focal_px * up / forward


def in_our_axes(point_cm: np.ndarray) -> np.ndarray:
    x, y, z = point_cm / 100
    return np.array([y, -z, x])


@pytest.fixture
def scene(tmp_path):
    """A dataset of one scene with three cameras; the folder of the scene."""
    folder = tmp_path / "train" / "f24_aperture5" / "scene1"
    (folder / "videos").mkdir(parents=True)
    (folder / "cameras").mkdir()
    extrinsics = {f"frame{n}": {f"cam{c:02}": as_text(camera_rows(n, c)) for c in (1, 2, 3)} for n in range(N)}
    (folder / "cameras" / "camera_extrinsics.json").write_text(json.dumps(extrinsics))
    for camera in (1, 2, 3):
        with VideoWriter(folder / "videos" / f"cam{camera:02}.mp4", fps=15, crf=4) as video:
            for n in range(N):
                video.write(dots.picture(*seen_by_unreal(camera_rows(n, camera), POINT_CM), SIDE, SIDE))
    return folder


def open_clips(scene, **changes) -> MultiCamClips:
    return MultiCamClips(scene.parents[2], **{"size_px": SIZE_PX, "num_frames": T, "seed": 1, **changes})


def read_all(scene, **changes) -> None:
    clips = open_clips(scene, **changes)
    for index in range(len(clips)):
        _ = clips[index]


def refusal(scene, **changes) -> str:
    with pytest.raises(InputError) as caught:
        read_all(scene, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_extrinsics(scene, edit) -> None:
    path = scene / "cameras" / "camera_extrinsics.json"
    frames = json.loads(path.read_text())
    edit(frames)
    path.write_text(json.dumps(frames))


# Axes


def test_a_right_turn_after_two_metres_forward_has_the_known_pose():
    start = pose_from_unreal(unreal_rows(0, 0, [1000, 500, 100]))
    end = pose_from_unreal(unreal_rows(np.pi / 2, 0, [1200, 500, 100]))
    np.testing.assert_allclose(start[:3, :3], np.eye(3), atol=1e-12)
    # forward (z) becomes right (x), right becomes backward (-z); down stays down
    expected = [[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 2], [0, 0, 0, 1]]
    np.testing.assert_allclose(inverse(start) @ end, expected, atol=1e-12)


def test_looking_up_and_rising_has_the_known_pose():
    start = pose_from_unreal(unreal_rows(0, 0, [0, 0, 100]))
    end = pose_from_unreal(unreal_rows(0, np.pi / 2, [0, 50, 400]))
    # forward (z) becomes up (-y), down (y) becomes forward (z)
    expected = [[1, 0, 0, 0.5], [0, 0, -1, -3], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(inverse(start) @ end, expected, atol=1e-12)


# Frame 9 of the published example's basic trajectories, which all start at [1 0 0 0] [0 1 0 0] [0 0 1 0] [3390 1380
# 240 1]. Source: KwaiVGI/ReCamMaster, example_test_data/cameras/camera_extrinsics.json; the names are its README's.
# Where the camera looks and goes is in its first frame's axes: x right, y down, z forward.
PUBLISHED = {
    "pan right": (
        "[0.999239 0.0390161 0 0] [-0.0390161 0.999239 0 0] [0 -0 1 0] [3390 1380 240 1] ",
        [1, 0],
        [0, 0, 0],
    ),
    "pan left": (
        "[0.999239 -0.0390161 0 0] [0.0390161 0.999239 -0 0] [0 0 1 0] [3390 1380 240 1] ",
        [-1, 0],
        [0, 0, 0],
    ),
    "tilt up": (
        "[0.99981 -6e-52 0.0195118 0] [4e-36 1 0 0] [-0.0195118 0 0.99981 0] [3390 1380 240 1] ",
        [0, -1],
        [0] * 3,
    ),
    "tilt down": ("[0.99981 0 -0.0195118 0] [-0 1 0 0] [0.0195118 0 0.99981 0] [3390 1380 240 1] ", [0, 1], [0, 0, 0]),
    "zoom in": ("[1 0 0 0] [-0 1 0 0] [0 -0 1 0] [3412.36 1380 240 1] ", [0, 0], [0, 0, 1]),
    "zoom out": ("[1 0 0 0] [-0 1 0 0] [0 -0 1 0] [3367.64 1380 240 1] ", [0, 0], [0, 0, -1]),
    "up": ("[0.99961 0 -0.0279394 0] [-0 1 0 0] [0.0279394 0 0.99961 0] [3390 1380 251.18 1] ", [0, 1], [0, -1, 0]),
    "down": ("[0.99961 0 0.0279394 0] [-0 1 0 0] [-0.0279394 -0 0.99961 0] [3390 1380 228.82 1] ", [0, -1], [0, 1, 0]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_trajectories_go_where_their_names_say(tmp_path, name):
    text, looks, goes = PUBLISHED[name]
    first = "[1 0 0 0] [-0 1 0 0] [0 -0 1 0] [3390 1380 240 1] "
    (tmp_path / "extrinsics.json").write_text(json.dumps({"frame0": {"cam01": first}, "frame1": {"cam01": text}}))
    start, end = read_extrinsics(tmp_path / "extrinsics.json", ("cam01",))["cam01"]
    motion = inverse(start) @ end
    np.testing.assert_array_equal(np.sign(np.round(motion[:2, 2], 5)), looks)
    np.testing.assert_array_equal(np.sign(np.round(motion[:3, 3], 5)), goes)
    assert np.linalg.norm(motion[:3, 3]) < 0.3  # metres


angles = st.floats(-1.5, 1.5)
places = st.tuples(*[st.floats(-1e4, 1e4)] * 3)


@given(angles, angles, places, angles, angles, places)
def test_poses_are_proper_and_relative_ones_are_those_of_the_published_loader(yaw, pitch, place, yaw2, pitch2, place2):
    rows = [unreal_rows(yaw, pitch, place), unreal_rows(yaw2, pitch2, place2)]
    one, two = check_poses([pose_from_unreal(value) for value in rows])
    published = []
    for value in rows:  # its steps: transpose, reorder, negate, to metres
        c2w = value.T[:, [1, 2, 0, 3]].copy()
        c2w[:3, 1] *= -1
        c2w[:3, 3] /= 100
        assert np.linalg.det(c2w[:3, :3]) == pytest.approx(-1)
        published.append(c2w)
    np.testing.assert_allclose(inverse(one) @ two, np.linalg.inv(published[0]) @ published[1], atol=1e-8)
    assert np.linalg.det((inverse(one) @ two)[:3, :3]) == pytest.approx(1)


# The dataset


def test_every_ordered_pair_is_a_sample_whose_pictures_agree_with_its_cameras(scene):
    clips = open_clips(scene)
    assert len(clips) == 6
    for index, (reference, target) in enumerate(ORDERED_PAIRS):
        sample = clips[index]
        start = int(np.random.default_rng([1, index]).integers(N - T + 1))
        first = camera_rows(start, int(reference[3:]))
        point_m = in_our_axes(POINT_CM) - in_our_axes(first[3, :3])
        np.testing.assert_allclose(sample.T_world_reference[0, :3, 3], 0)
        check_poses(sample.T_world_reference)
        check_poses(sample.T_world_target)
        for camera, frames, poses in (
            (reference, sample.reference_u8, sample.T_world_reference),
            (target, sample.target_u8, sample.T_world_target),
        ):
            assert frames.shape == (T, *SIZE_PX, 3)
            for n in range(T):
                seen = dots.project(point_m, poses[n], sample.intrinsics)
                u, v = seen_by_unreal(camera_rows(start + n, int(camera[3:])), POINT_CM)
                # 96x96 is cut to 64x96 and halved
                np.testing.assert_allclose(seen, [(u + 0.5) / 2 - 0.5, (v - 16 + 0.5) / 2 - 0.5], atol=1e-2)
                np.testing.assert_allclose(dots.position(frames[n]), seen, atol=0.2)
        assert not sample.reference_depth_m.any()


def test_the_same_seed_and_index_give_the_same_sample(scene):
    one, two = open_clips(scene)[4], open_clips(scene)[4]
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name))
    others = [open_clips(scene, seed=seed)[4] for seed in range(2, 8)]
    assert any(not np.array_equal(one.T_world_target, other.T_world_target) for other in others)
    with pytest.raises(IndexError):
        open_clips(scene)[6]


def test_samples_of_the_second_scene_follow_those_of_the_first(scene):
    second = scene.parents[1] / "f50_aperture2.4" / "scene9"
    (second / "cameras").mkdir(parents=True)
    (second / "cameras" / "camera_extrinsics.json").write_text(
        (scene / "cameras" / "camera_extrinsics.json").read_text()
    )
    (second / "videos").mkdir()
    for name in ("cam01.mp4", "cam03.mp4"):
        (second / "videos" / name).write_bytes((scene / "videos" / name).read_bytes())
    clips = open_clips(scene, num_frames=N)
    assert len(clips) == 6 + 2
    np.testing.assert_array_equal(clips[7].target_u8, clips[4].target_u8)  # cam03 to cam01
    assert clips[7].intrinsics.fx_px / clips[4].intrinsics.fx_px == pytest.approx(50 / 24)


def test_depth_and_captions_are_read_if_there(scene):
    (scene / "depth" / "cam02").mkdir(parents=True)
    for n in range(N):
        np.save(scene / "depth" / "cam02" / f"{n}.npy", np.full((SIDE, SIDE), 1.0 + n, np.float32))
    (scene.parents[2] / "metadata.csv").write_text(
        'file_name,text\nf24_aperture5/scene1/videos/cam02.mp4,"one, dancing"\n'
    )
    sample = open_clips(scene)[0]
    start = int(np.random.default_rng([1, 0]).integers(N - T + 1))
    assert sample.caption == "one, dancing"
    np.testing.assert_array_equal(sample.target_depth_m[:, 5, 5], 1.0 + start + np.arange(T))
    assert not sample.reference_depth_m.any()
    assert open_clips(scene)[1].caption == ""
    (scene.parents[2] / "metadata.csv").write_text("file,text\n")
    assert "want file_name and text" in refusal(scene)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda frames: frames.pop("frame3"), '"frame3" of 6 frames is missing'),
        (lambda frames: frames["frame3"].pop("cam02"), "frame3, cam02: missing"),
        (lambda frames: frames["frame3"].update(cam02=[1, 2]), "frame3, cam02: no string"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 1 0 0] [0 0 1 0]"), "rows of [4, 4, 4] numbers"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 1 0] [0 0 1 0] [0 0 0 1]"), "rows of [4, 3, 4, 4]"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1] 7"), "want four rows"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 1 0 0] [0 0 1 0] [a 0 0 1]"), "want numbers only"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 1 0 0] [0 0 1 0] [nan 0 0 1]"), "has NaN or inf"),
        (lambda frames: frames["frame3"].update(cam02="[2 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1]"), "not a rigid motion"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 9] [0 1 0 0] [0 0 1 0] [0 0 0 1]"), "last row"),
        (lambda frames: frames["frame3"].update(cam02="[1 0 0 0] [0 -1 0 0] [0 0 1 0] [0 0 0 1]"), "left-handed"),
    ],
)
def test_broken_cameras_are_named(scene, edit, message):
    edit_extrinsics(scene, edit)
    assert message in refusal(scene)


def test_missing_and_short_files_are_named(scene):
    extrinsics = scene / "cameras" / "camera_extrinsics.json"
    text = extrinsics.read_text()
    extrinsics.write_text(text[:500])
    assert "not valid JSON" in refusal(scene)
    extrinsics.write_text("[]")
    assert "want an object" in refusal(scene)
    extrinsics.unlink()
    assert "camera_extrinsics.json: does not exist" in refusal(scene)
    extrinsics.write_text(text)
    with VideoWriter(scene / "videos" / "cam02.mp4", fps=15) as video:
        for _ in range(T - 1):
            video.write(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert "cam02.mp4: only 3 frames" in refusal(scene)
    with VideoWriter(scene / "videos" / "cam02.mp4", fps=15) as video:
        video.write(np.zeros((64, 64, 3), np.uint8))
    assert "want one size" in refusal(scene)
    for name in ("cam01", "cam02", "cam03"):
        with VideoWriter(scene / "videos" / f"{name}.mp4", fps=15) as video:
            for _ in range(N):
                video.write(np.zeros((48, 64, 3), np.uint8))
    assert "want them square" in refusal(scene)
    (scene / "videos" / "cam03.mp4").write_bytes(b"no video")
    (scene / "videos" / "cam02.mp4").unlink()
    assert "cam03.mp4: not a video" in refusal(scene)
    (scene / "videos" / "cam03.mp4").unlink()
    assert "1 videos: want at least" in refusal(scene)


def test_wrong_layouts_and_arguments_are_named(scene):
    assert "7 frames: want at least 8" in refusal(scene, num_frames=N + 1)
    assert "num_frames=0" in refusal(scene, num_frames=0)
    (scene.parents[1] / "other").mkdir()
    assert "gives no focal length" in refusal(scene)
    (scene.parents[1] / "other").rmdir()
    scene.rename(scene.parents[2] / "scene1")
    assert "no scenes" in refusal(scene)
    scene.parent.rmdir()
    scene.parents[1].rmdir()
    assert "no folder train/" in refusal(scene)
