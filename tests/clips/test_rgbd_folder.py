"""RGB-D folders: round trips, hand-made layouts, target size, and every refusal."""

import json
import pickle

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from inspatio_sim.clips.framing import ClipRequest
from inspatio_sim.clips.rgbd_folder import read_depth, read_rgbd_folder, write_rgbd_folder
from inspatio_sim.clips.rgbd_layout import is_rgbd_folder, rgbd_files
from inspatio_sim.clips.video import Clip, clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from

T, H, W = 3, 48, 64


def turn_about_y(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def make_clip() -> Clip:
    """Noise pictures; depth from 1 to 5 m with an unknown corner; the camera walks and turns."""
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(1, 5, (T, H, W)).astype(np.float32)
    depth_m[:, :5, :7] = 0
    return Clip(
        frames_u8=rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        fps=12.0,
        source="made",
        depth_m=depth_m,
        intrinsics=Intrinsics(fx_px=50, fy_px=52, cx_px=30, cy_px=25, width_px=W, height_px=H),
        T_world_camera=np.stack([pose_from(turn_about_y(0.3 * n), [0.1 * n, 0, 1]) for n in range(T)]),
    )


@pytest.fixture
def folder(tmp_path):
    """A sound RGB-D folder to break."""
    write_rgbd_folder(tmp_path / "room", make_clip())
    return tmp_path / "room"


def edit_camera(folder, **changes) -> None:
    camera = json.loads((folder / "camera.json").read_text())
    camera.update(changes)
    camera = {key: value for key, value in camera.items() if value is not None}
    (folder / "camera.json").write_text(json.dumps(camera))


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        read_clip(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("depth_format", "tolerance_m"), [("png16", 0.0005), ("npy", 0.0), ("exr", 0.0)])
def test_round_trip(tmp_path, depth_format, tolerance_m):
    clip = make_clip()
    write_rgbd_folder(tmp_path / "room", clip, depth_format)
    read = read_clip(tmp_path / "room")
    np.testing.assert_array_equal(read.frames_u8, clip.frames_u8)
    np.testing.assert_allclose(read.depth_m, clip.depth_m, rtol=0, atol=tolerance_m * 1.01)
    np.testing.assert_array_equal(read.depth_m == 0, clip.depth_m == 0)
    np.testing.assert_allclose(read.T_world_camera, clip.T_world_camera, atol=1e-12)
    assert read.intrinsics == clip.intrinsics
    assert read.fps == clip.fps
    assert [path.name for path in tmp_path.iterdir()] == ["room"]


def test_known_depth_stays_known_in_png16(tmp_path):
    clip = make_clip()
    clip.depth_m[0, 20, 20] = 0.0001
    write_rgbd_folder(tmp_path / "room", clip)
    assert read_clip(tmp_path / "room").depth_m[0, 20, 20] == pytest.approx(0.001)


def test_depth_scale_of_png(folder):
    edit_camera(folder, depth_scale_m=0.0002)
    np.testing.assert_allclose(read_clip(folder).depth_m, make_clip().depth_m / 5, atol=0.00011)


def test_target_size_with_K_following(folder):
    """A framed point lies in the same direction, at the same depth, as in the full picture."""
    full = read_clip(folder)
    clip = read_clip(folder, size_px=(24, 24))
    assert clip.frames_u8.shape == (T, 24, 24, 3)
    assert clip.depth_m.shape == (T, 24, 24)
    v, u = 7, 11
    x, y = (u - clip.intrinsics.cx_px) / clip.intrinsics.fx_px, (v - clip.intrinsics.cy_px) / clip.intrinsics.fy_px
    u_full = x * full.intrinsics.fx_px + full.intrinsics.cx_px
    v_full = y * full.intrinsics.fy_px + full.intrinsics.cy_px
    assert (u_full, v_full) == pytest.approx((2 * u + 0.5 + 8, 2 * v + 0.5))
    near = full.depth_m[0, int(v_full) : int(v_full) + 2, int(u_full) : int(u_full) + 2]
    assert clip.depth_m[0, v, u] in near
    np.testing.assert_array_equal(clip.T_world_camera, full.T_world_camera)


def test_every_picks_frames_with_their_poses(folder):
    full, clip = read_clip(folder), read_clip(folder, every=2)
    np.testing.assert_array_equal(clip.frames_u8, full.frames_u8[::2])
    np.testing.assert_array_equal(clip.T_world_camera, full.T_world_camera[::2])
    assert clip.fps == full.fps / 2


def test_too_much_memory(folder):
    with pytest.raises(InputError, match="--max-frames"):
        read_rgbd_folder(folder, ClipRequest(max_bytes=1000))


def test_K_for_another_size_of_the_same_aspect_is_scaled(folder):
    K = make_clip().intrinsics.resized(2 * W, 2 * H)
    edit_camera(folder, K=K.K_px.tolist(), width=2 * W, height=2 * H)
    np.testing.assert_allclose(read_clip(folder).intrinsics.K_px, make_clip().intrinsics.K_px)


def test_hand_made_folder_with_other_names(folder):
    """rgb/, intrinsics.txt, poses.txt."""
    clip = read_clip(folder)
    (folder / "color").rename(folder / "rgb")
    (folder / "camera.json").unlink()
    (folder / "poses.json").unlink()
    np.savetxt(folder / "poses.txt", clip.T_world_camera.reshape(T, 16))
    for text in ("50 0 30\n0 52 25\n0 0 1\n", "50, 52, 30, 25", "50 0 30 0 0 52 25 0 0 0 1 0 0 0 0 1"):
        (folder / "intrinsics.txt").write_text(text)
        read = read_clip(folder)
        assert read.intrinsics == clip.intrinsics
        assert read.fps == 30
        np.testing.assert_allclose(read.T_world_camera, clip.T_world_camera)


def test_static_camera(folder):
    (folder / "poses.json").unlink()
    edit_camera(folder, static=True)
    np.testing.assert_array_equal(read_clip(folder).T_world_camera, np.tile(np.eye(4), (T, 1, 1)))


def test_what_is_an_rgbd_folder(folder, tmp_path):
    assert is_rgbd_folder(folder)
    assert not is_rgbd_folder(tmp_path)
    assert not is_rgbd_folder(folder / "color")


@pytest.mark.parametrize("channel", ["Z", "V", "Y", "R", "ViewLayer.Depth.Z"])
def test_exr_channels(tmp_path, channel):
    depth_m = make_clip().depth_m[0]
    for dtype, tolerance_m in ((np.float32, 0), (np.float16, 0.003)):
        with OpenEXR.File({"type": OpenEXR.scanlineimage}, {channel: depth_m.astype(dtype)}) as file:
            file.write(str(tmp_path / "d.exr"))
        np.testing.assert_allclose(read_depth(tmp_path / "d.exr"), depth_m, atol=tolerance_m)


def test_exr_that_is_none(tmp_path, capfd):
    (tmp_path / "d.exr").write_text("hello")
    with pytest.raises(InputError, match=r"d\.exr: not an EXR image"):
        read_depth(tmp_path / "d.exr")
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": make_clip().depth_m[0]}) as file:
        file.write(str(tmp_path / "d.exr"))
    data = (tmp_path / "d.exr").read_bytes()
    (tmp_path / "d.exr").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"d\.exr"):
        read_depth(tmp_path / "d.exr")


# Unknown depth and lost frames


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, np.finfo(np.float32).max, 65504.0, 1e10])
@pytest.mark.parametrize("suffix", [".npy", ".exr"])
def test_what_is_no_depth_is_unknown(tmp_path, suffix, value):
    wanted = make_clip().depth_m[0]
    depth_m = np.where(wanted > 0, wanted, np.float32(value))
    if suffix == ".npy":
        np.save(tmp_path / "d.npy", depth_m)
    else:
        with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": depth_m}) as file:
            file.write(str(tmp_path / "d.exr"))
    np.testing.assert_array_equal(read_depth(tmp_path / f"d{suffix}"), wanted)


def test_saturated_png_is_unknown(tmp_path):
    units = np.full((H, W), 65534, np.uint16)
    units[:9], units[9:20] = 65535, 0
    Image.fromarray(units).save(tmp_path / "d.png")
    np.testing.assert_allclose(read_depth(tmp_path / "d.png"), np.where(units == 65534, 65.534, 0), rtol=1e-6)


def test_depth_along_the_other_axis_is_refused(tmp_path):
    np.save(tmp_path / "d.npy", -make_clip().depth_m[0])
    with pytest.raises(InputError, match=r"d\.npy: all depth is negative \(lowest -4\.998 m\)"):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_depth_without_any_known_pixel(tmp_path, value):
    np.save(tmp_path / "d.npy", np.full((H, W), value))
    with pytest.raises(InputError, match=r"d\.npy: depth is unknown everywhere"):
        read_depth(tmp_path / "d.npy")


def test_frames_without_known_depth_are_left_out(folder, caplog):
    full = read_clip(folder)
    assert full.notes == ()
    for value in (0, 65535):
        Image.fromarray(np.full((H, W), value, np.uint16)).save(folder / "depth" / "000001.png")
        clip = read_clip(folder)
        np.testing.assert_array_equal(clip.frames_u8, full.frames_u8[[0, 2]])
        np.testing.assert_array_equal(clip.depth_m, full.depth_m[[0, 2]])
        np.testing.assert_array_equal(clip.T_world_camera, full.T_world_camera[[0, 2]])
        assert clip.notes == ("left out: frames without known depth (1)",)
        assert f"{folder}: left out: frames without known depth (1)" in caplog.text
    for n in (0, 2):
        Image.fromarray(np.zeros((H, W), np.uint16)).save(folder / "depth" / f"{n:06d}.png")
    assert "room: depth is unknown everywhere (000000.png, ...)" in refusal(folder)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 0.0])
@pytest.mark.parametrize("name", ["poses.json", "poses.txt", "pose"])
def test_frames_without_a_pose_are_left_out(folder, name, value):
    full = read_clip(folder)
    poses = full.T_world_camera.copy()
    poses[1] = value
    (folder / "poses.json").unlink()
    if name == "pose":
        (folder / "pose").mkdir()
        for n in range(T):
            np.savetxt(folder / "pose" / f"{n}.txt", poses[n])
    elif name == "poses.txt":
        np.savetxt(folder / name, poses.reshape(T, 16))
    else:
        (folder / name).write_text(json.dumps(poses.tolist()))
    clip = read_clip(folder)
    np.testing.assert_array_equal(clip.frames_u8, full.frames_u8[[0, 2]])
    np.testing.assert_allclose(clip.T_world_camera, full.T_world_camera[[0, 2]])
    assert clip.notes == ("left out: lost poses (1)",)


def test_no_pose_at_all(folder):
    (folder / "poses.json").write_text(json.dumps(np.full((T, 4, 4), np.nan).tolist()))
    assert "room: the poses of all frames are lost" in refusal(folder)


# Which files go together


def gap_pair(folder) -> Clip:
    """Colour 1, 3, 4 with depth 1, 2, 3: the names, not the order, say what goes together."""
    clip = read_clip(folder)
    for kind, numbers in (("color", (4, 3, 1)), ("depth", (3, 2, 1))):
        for n, number in zip((2, 1, 0), numbers, strict=True):
            (folder / kind / f"{n:06d}.png").rename(folder / kind / f"frame_{number}.png")
    return clip


def test_files_are_paired_by_number(folder):
    clip = gap_pair(folder)
    read = read_clip(folder)
    np.testing.assert_array_equal(read.frames_u8, clip.frames_u8[[0, 1]])
    np.testing.assert_array_equal(read.depth_m, clip.depth_m[[0, 2]])
    np.testing.assert_array_equal(read.T_world_camera, clip.T_world_camera[[0, 1]])  # poses belong to pictures
    assert read.notes == ("left out: pictures without depth (1), depth images without a picture (1)",)
    assert [path.name for path in rgbd_files(folder)[2:]] == ["frame_1.png", "frame_3.png"] * 2


def test_pose_files_are_paired_by_number(folder):
    clip = read_clip(folder)
    (folder / "poses.json").unlink()
    (folder / "pose").mkdir()
    for n, row in ((0, 0), (2, 2), (7, 1)):
        np.savetxt(folder / "pose" / f"{n}.txt", clip.T_world_camera[row])
    read = read_clip(folder)
    np.testing.assert_allclose(read.T_world_camera, clip.T_world_camera[[0, 2]])
    assert read.notes == ("left out: pictures without a pose (1)",)
    (folder / "pose" / "0.txt").write_text("1 0 0 0")
    assert "0.txt: 4 numbers: want 16 for each frame" in refusal(folder)


@pytest.mark.parametrize(
    ("color_name", "depth_name"),
    [
        ("{}", "{:06d}"),
        ("cam1_{:04d}", "depth_{}"),
        ("{}_rgb_8bit", "{}_depth_16bit"),
        ("17000000{:02d}.25", "17000000{:02d}.25"),
    ],
)
def test_names_that_go_together(folder, color_name, depth_name):
    clip = read_clip(folder)
    for n in range(T):
        (folder / "color" / f"{n:06d}.png").rename(folder / "color" / f"{color_name.format(n)}.png")
        (folder / "depth" / f"{n:06d}.png").rename(folder / "depth" / f"{depth_name.format(n)}.png")
    (folder / "depth" / f"{depth_name.format(0)}.png").unlink()
    read = read_clip(folder)
    np.testing.assert_array_equal(read.frames_u8, clip.frames_u8[1:])
    np.testing.assert_array_equal(read.depth_m, clip.depth_m[1:])


def test_names_that_do_not_go_together(folder, caplog):
    for n in range(T):
        (folder / "depth" / f"{n:06d}.png").rename(folder / "depth" / f"{100 + n}.png")
    assert "which depth belongs to which picture (000000.png, 100.png)" in refusal(folder)
    for n in range(T):
        (folder / "depth" / f"{100 + n}.png").rename(folder / "depth" / f"{'abc'[n]}.png")
    np.testing.assert_array_equal(read_clip(folder).depth_m[0] == 0, make_clip().depth_m[0] == 0)
    assert "colour and depth have other names (000000.png, a.png): paired in order" in caplog.text


# Side by side


def side_by_side(folder, color: str, depth: str, pose: str | None = None) -> None:
    """All files of a folder by such names in the folder itself."""
    clip = read_clip(folder)
    for n in range(T):
        (folder / "color" / f"{n:06d}.png").rename(folder / color.format(n))
        (folder / "depth" / f"{n:06d}.png").rename(folder / depth.format(n))
        if pose:
            np.savetxt(folder / pose.format(n), clip.T_world_camera[n])
            (folder / "poses.json").unlink(missing_ok=True)
    for name in ("color", "depth"):
        (folder / name).rmdir()


@pytest.mark.parametrize(
    ("color", "depth", "pose"),
    [
        ("frame{:06d}.png", "depth{:06d}.png", None),
        ("{}.png", "{}_depth.png", None),
        ("{}_rgb.png", "{}_range.png", None),  # told by its 16 bits
        ("frame-{:06d}.color.png", "frame-{:06d}.depth.png", "frame-{:06d}.pose.txt"),
    ],
)
def test_files_side_by_side(folder, color, depth, pose):
    clip = read_clip(folder)
    side_by_side(folder, color, depth, pose)
    assert is_rgbd_folder(folder)
    read = read_clip(folder)
    np.testing.assert_array_equal(read.frames_u8, clip.frames_u8)
    np.testing.assert_array_equal(read.depth_m, clip.depth_m)
    np.testing.assert_allclose(read.T_world_camera, clip.T_world_camera)
    assert read.intrinsics == clip.intrinsics
    assert len(clip_files(folder)) == 1 + 2 * T + (T if pose else 1)


def test_side_by_side_with_a_matrix_as_camera(folder):
    clip = read_clip(folder)
    side_by_side(folder, "frame-{:06d}.color.png", "frame-{:06d}.depth.png", "frame-{:06d}.pose.txt")
    (folder / "camera.json").unlink()
    np.savetxt(folder / "camera-intrinsics.txt", clip.intrinsics.K_px)
    np.testing.assert_array_equal(read_clip(folder).depth_m, clip.depth_m)


def test_side_by_side_wants_the_camera_and_the_unit(folder):
    """Depth never becomes a picture of the clip."""
    side_by_side(folder, "frame{:06d}.png", "depth{:06d}.png")
    edit_camera(folder, depth_scale_m=None)
    assert "depth beside the colour images (depth000000.png): want depth_scale_m in camera.json" in refusal(folder)
    (folder / "camera.json").unlink()
    message = refusal(folder)
    assert "no camera.json for colour (frame000000.png, ...) with depth (depth000000.png, ...)" in message
    assert "want camera.json with K, width and height, and depth_scale_m; for the pictures alone" in message
    assert "depth000000.png: one 16-bit channel, like depth" in refusal(sorted(folder.glob("*.png")))


def test_floating_point_files_beside_pictures(folder):
    """They can be no pictures: without a camera the pictures are a clip."""
    clip = read_clip(folder)
    side_by_side(folder, "frame{:06d}.png", "depth{:06d}.png")
    for n in range(T):
        (folder / f"depth{n:06d}.png").unlink()
        np.save(folder / f"depth{n:06d}.npy", clip.depth_m[n])
    np.testing.assert_array_equal(read_clip(folder).depth_m, clip.depth_m)
    (folder / "camera.json").unlink()
    read = read_clip(folder)
    np.testing.assert_array_equal(read.frames_u8, clip.frames_u8)
    assert read.depth_m is None


def test_depth_by_name_that_is_none(folder):
    side_by_side(folder, "frame{:06d}.png", "depth{:06d}.png")
    for n in range(T):
        Image.fromarray(np.full((H, W), 90, np.uint8)).save(folder / f"depth{n:06d}.png")
    assert "depth000000.png: depth png of mode L: want one 16-bit channel" in refusal(folder)
    for n in range(T):
        (folder / f"depth{n:06d}.png").unlink()
        Image.fromarray(np.full((H, W), 90, np.uint8)).save(folder / f"depth{n:06d}.jpg")
    assert "depth000000.jpg: depth among colour images, in an unsupported format" in refusal(folder)


def test_depth_images_alone(folder, tmp_path):
    assert "depth: depth images only: want the folder with the colour images" in refusal(folder / "depth")
    assert read_clip(folder / "color").depth_m is None


def test_pictures_that_are_no_rgbd(tmp_path):
    """A word in a name, or 16 bits in all pictures, is no depth."""
    for n, name in enumerate(("a1.png", "a2.png", "depth_of_field.png")):
        Image.fromarray(np.full((H, W, 3), 50 * n, np.uint8)).save(tmp_path / name)
    assert len(read_clip(tmp_path).frames_u8) == 3
    (tmp_path / "thermal").mkdir()
    for n in range(2):
        Image.fromarray(np.full((H, W), 256 * 50 * n, np.uint16)).save(tmp_path / "thermal" / f"{n}.png")
    assert read_clip(tmp_path / "thermal").frames_u8.max() == 50


def test_handed_folders(test_data):
    clips = test_data / "cases" / "clips"
    if not (clips / "gap_pair").is_dir():
        pytest.skip(f"{clips} has no gap_pair")
    assert read_clip(clips / "gap_pair").notes == (
        "left out: pictures without depth (1), depth images without a picture (1)",
    )
    assert "no camera.json" in refusal(clips / "replica_results")


def test_a_real_room(test_data):
    folder = test_data / "rgbd" / "office"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    clip = read_clip(folder, size_px=(96, 128), every=30)
    assert len(clip.frames_u8) == 6
    assert 1 < np.median(clip.depth_m[clip.depth_m > 0]) < 3
    assert clip.intrinsics.fx_px == pytest.approx(585 / 5)
    assert np.linalg.norm(np.diff(clip.T_world_camera[:, :3, 3], axis=0), axis=1).max() < 2


# Refusals


def test_missing_parts(folder):
    (folder / "camera.json").rename(folder / "kept")
    assert "no camera.json" in refusal(folder)
    (folder / "kept").rename(folder / "camera.json")
    (folder / "poses.json").rename(folder / "kept")
    assert 'poses: none: want one of poses.json, poses.txt, a folder pose/ and "static": true' in refusal(folder)
    (folder / "kept").rename(folder / "poses.json")
    edit_camera(folder, static=True)
    assert "poses: poses.json, static: true: want one" in refusal(folder)
    edit_camera(folder, static=None)
    (folder / "color").rename(folder / "pictures")
    assert "no folder color/" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"K": [[50, 0, 30], [0, float("nan"), 25], [0, 0, 1]]}, "camera.json: K has NaN"),
        ({"K": [[50, 0], [0, 50]]}, "camera.json: K has shape (2, 2)"),
        ({"K": [[50, 0, 30], [0, 50], [0, 0, 1]]}, "camera.json: K is not a matrix"),
        ({"K": [[-50, 0, 30], [0, 50, 25], [0, 0, 1]]}, "camera.json: focal lengths"),
        ({"K": "none"}, "camera.json: K is not a matrix"),
        ({"K": None}, "camera.json: K missing"),
        ({"width": 100}, "K is for 100x48 px, but the colour images have 64x48"),
        ({"width": "64"}, "camera.json: width is '64'"),
        ({"height": 0}, "camera.json: height is 0"),
        ({"fps": -1}, "camera.json: fps is -1"),
        ({"depth_scale_m": 0}, "camera.json: depth_scale_m is 0"),
        ({"static": "yes"}, "camera.json: static is 'yes'"),
    ],
)
def test_bad_camera(folder, changes, message):
    edit_camera(folder, **changes)
    assert message in refusal(folder)


def test_camera_file_that_is_no_json(folder):
    (folder / "camera.json").write_text("K = 5")
    assert "camera.json: not valid JSON" in refusal(folder)
    (folder / "camera.json").write_text("[1, 2]")
    assert "camera.json: want an object" in refusal(folder)
    (folder / "camera.json").write_bytes(b"\xff\xfe\x00")
    assert "camera.json: not a text file" in refusal(folder)


def mirrored() -> np.ndarray:
    return np.diag([1.0, -1, 1, 1])


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.diag([2.0, 2, 2, 1]), "poses.json: pose[1] is not a rigid motion"),
        (mirrored(), "poses.json: pose[1] is left-handed"),
        (np.diag([1.0, 1, 1, 2]), "poses.json: pose[1] has last row"),
    ],
)
def test_bad_pose(folder, pose, message):
    poses = make_clip().T_world_camera
    poses[1] = pose
    (folder / "poses.json").write_text(json.dumps(poses.tolist()))
    assert message in refusal(folder)


def test_bad_pose_files(folder):
    poses = make_clip().T_world_camera
    (folder / "poses.json").write_text(json.dumps(poses[:2].tolist()))
    assert "poses.json: 2 poses for 3 colour images" in refusal(folder)
    (folder / "poses.json").write_text(json.dumps(poses[:, :3].tolist()))
    assert "has shape (3, 3, 4): want N x 4 x 4" in refusal(folder)
    (folder / "poses.json").write_text("7")
    assert "poses.json: pose has shape (): want N x 4 x 4" in refusal(folder)
    (folder / "poses.json").unlink()
    (folder / "poses.txt").write_text("1 0 0")
    assert "poses.txt: 3 numbers: want 16" in refusal(folder)
    (folder / "poses.txt").write_text("one two")
    assert "poses.txt: want numbers only" in refusal(folder)


def test_sizes_that_differ(folder):
    Image.fromarray(np.ones((H, 2 * W), np.uint16)).save(folder / "depth" / "000001.png")
    assert "000001.png: 128x48 px, but the colour images have 64x48" in refusal(folder)
    Image.fromarray(np.zeros((H, 70, 3), np.uint8)).save(folder / "color" / "000001.png")
    assert "000001.png: 70x48 px, but 000000.png has 64x48" in refusal(folder)


def test_bad_png_depth(folder):
    path = folder / "depth" / "000001.png"
    Image.fromarray(np.ones((H, W), np.uint8)).save(path)
    assert "000001.png: depth png of mode L: want one 16-bit channel" in refusal(folder)
    path.write_text("hello")
    assert "000001.png: not an image" in refusal(folder)


def test_npy_that_is_no_depth(tmp_path):
    path = tmp_path / "d.npy"
    for array, message in [
        (np.ones((H, W), np.uint16), "uint16"),
        (np.ones((1, H, W)), r"\(1, 48, 64\)"),
    ]:
        np.save(path, array)
        with pytest.raises(InputError, match=rf"d\.npy: .*{message}.*want floating-point metres"):
            read_depth(path)
    path.write_text("hello")
    with pytest.raises(InputError, match="not a plain numpy array"):
        read_depth(path)


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "d.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="not a plain numpy array"):
        read_depth(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain numpy array"):
        read_depth(tmp_path / "d.npy")
    assert not (tmp_path / "sprung").exists()


# Writing


def test_writing_is_all_or_nothing(tmp_path):
    clip = make_clip()
    clip.depth_m[-1, 0, 0] = 70
    with pytest.raises(InputError, match="does not fit png16"):
        write_rgbd_folder(tmp_path / "room", clip)
    clip.depth_m[-1, 0, 0] = 65.535  # which would be read as unknown
    with pytest.raises(InputError, match=r"depth of 65\.535 m does not fit png16"):
        write_rgbd_folder(tmp_path / "room", clip)
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses(tmp_path, folder):
    with pytest.raises(InputError, match="room: exists already"):
        write_rgbd_folder(folder, make_clip())
    with pytest.raises(InputError, match="depth_format='tiff'"):
        write_rgbd_folder(tmp_path / "new", make_clip(), "tiff")  # type: ignore[arg-type]
    bare = Clip(frames_u8=make_clip().frames_u8, fps=1.0, source="made")
    with pytest.raises(InputError, match="lacks depth"):
        write_rgbd_folder(tmp_path / "new", bare)
    (tmp_path / "empty").mkdir()
    write_rgbd_folder(tmp_path / "empty", make_clip())
    assert len(read_clip(tmp_path / "empty").frames_u8) == T
