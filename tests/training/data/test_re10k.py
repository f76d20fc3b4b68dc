"""RealEstate10K: camera files as published, pictures that agree with K and poses, pairs, and every refusal."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from inspatio_sim.clips.video import VideoWriter
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import inverse, pose_from
from inspatio_sim.training.data.re10k import Re10kClips, choose_pair, read_re10k_cameras
from tests.training.data import dots

N, T, H, W = 10, 4, 54, 96
SIZE_PX = (32, 48)
FX, FY, CX, CY = 0.6, 0.6 * W / H, 0.51, 0.48
POINT = np.array([0.2, 0.1, 4.0])

# The first frame of a published clip: the line, and what it means.
PUBLISHED = (
    "110143367 0.491143136 0.873143397 0.500000000 0.500000000 0.000000000 0.000000000 "
    "0.934651494 0.056077637 -0.351115197 0.239832992 -0.054793559 0.998405099 0.013600421 0.230564195 "
    "0.351317883 0.006527198 0.936233461 -0.840550667"
)


def camera_path() -> np.ndarray:
    """[N, 4, 4]"""
    turns = Rotation.from_euler("yx", np.linspace([0, 0], [0.1, -0.05], N)).as_matrix()
    return np.stack([pose_from(R, [0.04 * n, -0.02 * n, 0.05 * n]) for n, R in enumerate(turns)])


def camera_lines() -> list[str]:
    lines = ["https://www.youtube.com/watch?v=none"]
    for n, T_world_camera in enumerate(camera_path()):
        numbers = [FX, FY, CX, CY, 0, 0, *inverse(T_world_camera)[:3].ravel()]
        lines.append(f"{1000 + 33 * n} " + " ".join(f"{value:.9f}" for value in numbers))
    return lines


def pictures() -> list[np.ndarray]:
    """The point as each camera sees it, by the published format's own definition. [H, W, 3] each"""
    frames = []
    for T_world_camera in camera_path():
        x, y, z = (inverse(T_world_camera) @ [*POINT, 1.0])[:3]
        # in widths and heights from the picture's edge, which lies half a pixel before the first centre
        frames.append(dots.picture((FX * x / z + CX) * W - 0.5, (FY * y / z + CY) * H - 0.5, H, W))
    return frames


@pytest.fixture
def folder(tmp_path):
    """One clip, "walk", with pictures."""
    (tmp_path / "walk.txt").write_text("\n".join(camera_lines()) + "\n")
    (tmp_path / "frames" / "walk").mkdir(parents=True)
    for n, rgb_u8 in enumerate(pictures()):
        Image.fromarray(rgb_u8).save(tmp_path / "frames" / "walk" / f"{1000 + 33 * n}.png")
    return tmp_path


def open_clips(folder, **changes) -> Re10kClips:
    return Re10kClips(folder, **{"size_px": SIZE_PX, "num_frames": T, "seed": 3, **changes})


def read_all(folder, **changes) -> None:
    clips = open_clips(folder, **changes)
    for index in range(len(clips)):
        _ = clips[index]


def refusal(folder, **changes) -> str:
    with pytest.raises(InputError) as caught:
        read_all(folder, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_line(folder, number: int, edit) -> None:
    lines = camera_lines()
    lines[number] = " ".join(edit(lines[number].split()))
    (folder / "walk.txt").write_text("\n".join(lines))


def test_a_published_line_gives_its_camera(tmp_path):
    (tmp_path / "clip.txt").write_text(f"https://www.youtube.com/watch?v=none\n{PUBLISHED}\n")
    cameras = read_re10k_cameras(tmp_path / "clip.txt")
    assert cameras.timestamps == ("110143367",)
    K = cameras.intrinsics((720, 1280)).K_px
    np.testing.assert_allclose(K[0, 0], K[1, 1], rtol=1e-5)  # square pixels at 16:9
    np.testing.assert_allclose(K[:2, 2], [639.5, 359.5])
    seen = inverse(cameras.T_world_camera[0]) @ [0, 0, 0, 1]
    np.testing.assert_allclose(seen[:3], [0.239832992, 0.230564195, -0.840550667], atol=1e-6)


@pytest.mark.parametrize("is_video", [False, True])
def test_a_known_point_is_where_poses_and_K_say(folder, is_video):
    if is_video:
        with VideoWriter(folder / "frames" / "walk.mp4", fps=30, crf=4) as video:
            for rgb_u8 in pictures():
                video.write(rgb_u8)
        for path in (folder / "frames" / "walk").iterdir():
            path.unlink()
        (folder / "frames" / "walk").rmdir()
    clips = open_clips(folder)
    for index in range(len(clips)):
        sample = clips[index]
        assert sample.reference_u8.shape == sample.target_u8.shape == (T, *SIZE_PX, 3)
        assert (sample.intrinsics.height_px, sample.intrinsics.width_px) == SIZE_PX
        # the sample's world is the file's, moved: find how far by a camera that both know
        first = choose_pair(N, T, np.random.default_rng([3, index]))[0][0]
        point = POINT - camera_path()[first, :3, 3]
        for frames, poses in (
            (sample.reference_u8, sample.T_world_reference),
            (sample.target_u8, sample.T_world_target),
        ):
            for rgb_u8, T_world_camera in zip(frames, poses, strict=True):
                expected = dots.project(point, T_world_camera, sample.intrinsics)
                np.testing.assert_allclose(dots.position(rgb_u8), expected, atol=0.15)
        np.testing.assert_allclose(sample.T_world_reference[0, :3, 3], 0)


def test_the_same_seed_and_index_give_the_same_sample(folder):
    one, two = open_clips(folder)[5], open_clips(folder)[5]
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name))
    others = [open_clips(folder, seed=seed)[5] for seed in range(4, 10)]
    assert any(not np.array_equal(one.target_u8, other.target_u8) for other in others)
    np.testing.assert_array_equal(open_clips(folder)[-1].target_u8, open_clips(folder)[7].target_u8)
    with pytest.raises(IndexError):
        open_clips(folder)[8]


@given(seed=st.integers(0, 2**32), num_frames=st.integers(1, 60), data=st.data())
def test_pairs_are_runs_of_frames_in_either_direction_or_one_picture(seed, num_frames, data):
    num_chosen = data.draw(st.integers(1, num_frames))
    reference, target = choose_pair(num_frames, num_chosen, np.random.default_rng(seed))
    for frame_idxs in (reference, target):
        assert len(frame_idxs) == num_chosen
        assert 0 <= min(frame_idxs) <= max(frame_idxs) < num_frames
    assert set(np.diff(target)) in (set(), {1}, {-1})
    if set(np.diff(reference)) == {0}:
        assert reference[0] == target[0]
    else:
        assert set(np.diff(reference)) in (set(), {1}, {-1})


def test_all_kinds_of_pairs_come_up():
    pairs = [choose_pair(N, T, np.random.default_rng([0, index])) for index in range(400)]
    kinds = [(reference[1] - reference[0], target[1] - target[0]) for reference, target in pairs]
    share_still = np.mean([reference == 0 for reference, _ in kinds])
    assert set(kinds) == {(r, t) for r in (-1, 0, 1) for t in (-1, 1)}
    assert 0.15 < share_still < 0.35
    assert {target[0] for _, target in pairs} == set(range(N))


def test_depth_and_caption_are_read_and_unknown_depth_is_zero(folder):
    assert not open_clips(folder)[0].target_depth_m.any()
    (folder / "depth" / "walk").mkdir(parents=True)
    for n in range(N):  # half the pictures' size
        np.save(folder / "depth" / "walk" / f"{1000 + 33 * n}.npy", np.full((H // 2, W // 2), 1.0 + n, np.float32))
    (folder / "captions").mkdir()
    (folder / "captions" / "walk.txt").write_text("a hall\n")
    sample = open_clips(folder)[2]
    reference, target = choose_pair(N, T, np.random.default_rng([3, 2]))
    assert sample.caption == "a hall"
    assert sample.reference_depth_m.shape == (T, *SIZE_PX)
    np.testing.assert_array_equal(sample.reference_depth_m[:, 3, 4], 1.0 + np.array(reference))
    np.testing.assert_array_equal(sample.target_depth_m[:, 31, 47], 1.0 + np.array(target))
    (folder / "depth" / "walk" / "1000.npy").rename(folder / "depth" / "walk" / "1000.npz")
    assert "nothing for frame 1000" in refusal(folder)
    np.save(folder / "depth" / "walk" / "1000.npy", np.ones((30, 30), np.float32))
    assert "want the same aspect" in refusal(folder)


def test_clips_that_cannot_be_used_are_passed_over_with_a_warning(folder, caplog):
    (folder / "no_pictures.txt").write_text((folder / "walk.txt").read_text())
    (folder / "short.txt").write_text("\n".join(camera_lines()[:3]))
    (folder / "frames" / "short").mkdir()
    with caplog.at_level(logging.WARNING):
        assert open_clips(folder).clip_ids == ["walk"]
    assert "1 clips without pictures, 1 too short" in caplog.text


@pytest.mark.parametrize(
    ("number", "edit", "message"),
    [
        (4, lambda words: words[:-1], "walk.txt, line 5: 18 numbers: want 19"),
        (4, lambda words: [*words, "0"], "line 5: 20 numbers: want 19"),
        (4, lambda words: [*words[:-1], "far"], "line 5: want numbers only"),
        (4, lambda words: [*words[:-1], "nan"], "line 5: has NaN or inf"),
        (4, lambda words: [*words[:7], "0.5", *words[8:]], "line 5: the pose is not a rigid motion"),
        (4, lambda words: [*words[:7], *(f"{-float(word)}" for word in words[7:])], "line 5: the pose is left-handed"),
        (4, lambda words: [words[0], "-1", *words[2:]], "line 5: focal lengths -1"),
        (4, lambda words: [words[0], "0.7", *words[2:]], "the intrinsics change"),
        (4, lambda words: [*words[:5], "0.1", *words[6:]], "line 5: distortion 0.1 0"),
        (4, lambda words: ["../../secret", *words[1:]], "line 5: timestamp '../../secret': want microseconds"),
        (4, lambda words: ["1000", *words[1:]], "line 5: timestamp 1000 after 1066"),
        (0, lambda words: camera_lines()[1].split(), "the first line is a frame"),
    ],
)
def test_a_broken_camera_line_is_named(folder, number, edit, message):
    edit_line(folder, number, edit)
    assert message in refusal(folder)


def test_missing_files_are_named(folder):
    for n in range(N):
        (folder / "frames" / "walk" / f"{1000 + 33 * n}.png").rename(folder / "frames" / "walk" / f"{n}.png")
    assert "no picture for timestamp" in refusal(folder)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "frames" / "walk" / "1000.jpg")
    for n in range(1, N):
        Image.fromarray(pictures()[n]).save(folder / "frames" / "walk" / f"{1000 + 33 * n}.png")
    assert "want one size" in refusal(folder, pairs_per_clip=30)
    (folder / "walk.txt").write_bytes(b"\xff\xfe\x00\xd8")
    assert "not a text file" in refusal(folder)
    (folder / "walk.txt").unlink()
    assert "no camera files" in refusal(folder)


def test_a_video_must_have_a_frame_for_each_line(tmp_path):
    (tmp_path / "walk.txt").write_text("\n".join(camera_lines()))
    (tmp_path / "frames").mkdir()
    for num_frames, came in ((N - 1, "9 frames for 10"), (N + 1, "more frames for 10")):
        with VideoWriter(tmp_path / "frames" / "walk.mp4", fps=30) as video:
            for _ in range(num_frames):
                video.write(np.zeros((H, W, 3), np.uint8))
        assert came in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": N + 1}, "no clip has num_frames=11"),
        ({"seed": -1}, "seed=-1"),
        ({"size_px": (8, 48)}, "too small"),
        ({"pairs_per_clip": 0}, "pairs_per_clip=0"),
    ],
)
def test_wrong_arguments_are_named(folder, changes, message):
    assert message in refusal(folder, **changes)


def test_no_folder_and_no_pictures_are_named(folder):
    assert "cannot be read" in refusal(folder / "nowhere")
    assert "is a file" in refusal(folder / "walk.txt")
    (folder / "frames").rename(folder / "images")
    assert "no pictures of any clip" in refusal(folder)
