"""Folders of clips with depth: the round trip, the choice of frames, K that follows the crop, and every refusal."""

import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.training.data.clip_folder import ClipFolder
from inspatio_sim.training.data.sample import Sample
from tests.training.data import dots
from tests.training.data.layouts import write_clip_folder

T, H, W = 6, 48, 72
POINT = np.array([0.1, -0.2, 3.0])
K = Intrinsics(fx_px=60, fy_px=61, cx_px=35, cy_px=25, width_px=W, height_px=H)


def make_sample(caption: str = "a dot in the dark") -> Sample:
    """Two cameras that see one point; depth is the frame's number, unknown in a corner."""
    n = np.arange(T)
    paths = np.tile(np.eye(4), (2, T, 1, 1))
    paths[..., :3, 3] = np.stack([0.03 * n, 0.02 * n, -0.05 * n], axis=-1) + np.array([[[0, 0, 0]], [[0.2, 0, 0]]])
    frames = [
        np.stack([dots.picture(*dots.project(POINT, T_world_camera, K), H, W) for T_world_camera in path])
        for path in paths
    ]
    depth_m = np.tile(np.arange(1, T + 1, dtype=np.float32)[:, None, None] + np.float32(1 / 3), (1, H, W))
    depth_m[:, :4, :6] = 0
    return Sample(
        reference_u8=frames[0],
        target_u8=frames[1],
        reference_depth_m=depth_m,
        target_depth_m=depth_m + np.float32(0.5),
        intrinsics=K,
        T_world_reference=paths[0],
        T_world_target=paths[1],
        caption=caption,
    )


def open_clips(folder, **changes) -> ClipFolder:
    return ClipFolder(folder, **{"size_px": (H, W), "num_frames": T, "seed": 2, **changes})


def refusal(folder, **changes) -> str:
    with pytest.raises(InputError) as caught:
        _ = open_clips(folder, **changes)[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    write_clip_folder(make_sample(), tmp_path / "clip_1")
    return tmp_path


def test_a_written_sample_is_read_back_exactly(folder):
    write_clip_folder(make_sample(caption=""), folder / "clip_10")
    write_clip_folder(make_sample(caption="zwei Wörter"), folder / "clip_2")
    clips = open_clips(folder)
    assert [path.name for path in clips.clips] == ["clip_1", "clip_2", "clip_10"]
    assert [clips[index].caption for index in range(3)] == ["a dot in the dark", "zwei Wörter", ""]
    for name, value in vars(make_sample()).items():
        read = getattr(clips[0], name)
        if name.startswith("T_"):
            np.testing.assert_allclose(read, value, atol=1e-12)
        else:
            np.testing.assert_array_equal(read, value)


def test_a_point_stays_where_it_is_seen_through_crop_and_resize(folder):
    sample = open_clips(folder, size_px=(32, 32))[0]
    for frames, poses in ((sample.reference_u8, sample.T_world_reference), (sample.target_u8, sample.T_world_target)):
        for rgb_u8, T_world_camera in zip(frames, poses, strict=True):
            expected = dots.project(POINT, T_world_camera, sample.intrinsics)
            np.testing.assert_allclose(dots.position(rgb_u8), expected, atol=0.15)


def test_part_of_a_clip_is_chosen_by_seed_and_index(folder):
    starts = set()
    for seed in range(40):
        sample, again = (open_clips(folder, num_frames=2, seed=seed)[0] for _ in range(2))
        start = int(sample.reference_depth_m[0, -1, -1]) - 1
        np.testing.assert_array_equal(sample.target_u8, make_sample().target_u8[start : start + 2])
        np.testing.assert_allclose(sample.T_world_target, make_sample().T_world_target[start : start + 2], atol=1e-12)
        np.testing.assert_array_equal(sample.target_u8, again.target_u8)
        starts.add(start)
    assert starts == set(range(T - 1))


def test_missing_parts_are_named(folder):
    clip = folder / "clip_1"
    (clip / "target" / "poses.json").rename(clip / "poses.json")
    assert "want one of poses.json" in refusal(folder)
    (clip / "poses.json").rename(clip / "target" / "poses.json")
    (clip / "target" / "depth" / "000003.npy").unlink()
    assert "6 frames of reference, 5 of target" in refusal(folder)
    (clip / "target" / "color" / "000003.png").unlink()
    assert "6 frames of reference, 5 of target" in refusal(folder)
    (clip / "target").rename(folder / "target")
    assert "no folder target" in refusal(folder)


def test_broken_poses_are_named(folder):
    path = folder / "clip_1" / "reference" / "poses.json"
    path.write_text(path.read_text().replace("-0.05", "NaN", 1))
    assert "clip_1/reference: left out: lost poses (1): want every frame whole" in refusal(folder)


def test_two_cameras_are_refused(folder):
    path = folder / "clip_1" / "target" / "camera.json"
    path.write_text(path.read_text().replace("60", "66", 1))
    assert "K of reference and target differ" in refusal(folder)


def test_wrong_arguments_and_empty_folders_are_named(folder, tmp_path):
    assert "6 frames: want at least num_frames=7" in refusal(folder, num_frames=7)
    assert "seed=-2" in refusal(folder, seed=-2)
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    assert "no folders in it" in refusal(tmp_path / "empty")
