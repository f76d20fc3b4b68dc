import importlib.util
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import inverse, pose_from
from inspatio_sim.reconstruction.one_view.da3 import (
    Da3Reconstructor,
    Views,
    joined,
    load_network,
    preprocessed,
    see,
    split_runs,
)
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("depth_anything_3") is None,
    reason="depth-anything-3 is not installed (pip install --no-deps depth-anything-3==0.1.1; einops omegaconf addict)",
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 832), (294, 504)), ((720, 1280), (280, 504)), ((100, 50), (504, 252)), ((504, 504), (504, 504))],
)
def test_preprocessing_sizes(size, expected):
    images = preprocessed(np.zeros((1, *size, 3), np.uint8), 504)
    assert tuple(images.shape) == (1, 3, *expected)
    np.testing.assert_allclose(images[0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


@pytest.mark.parametrize(("num_frames", "views"), [(1, 16), (16, 16), (17, 16), (100, 16), (9, 4)])
def test_runs_cover_every_frame_once_and_begin_with_frame_0(num_frames, views):
    anchors, runs = split_runs(num_frames, views)
    assert anchors[0] == 0
    assert sorted(anchors + [i for run in runs for i in run]) == list(range(num_frames))
    assert all(len(anchors) + len(run) <= views for run in runs)


def test_runs_are_joined_by_their_anchors():
    """Two runs of one scene, each in its own world and unit, agree after joining."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 5, (4, 6, 8)).astype(np.float32)
    poses = np.stack([pose_from(tilted_rotation(0.1 * i), [i, 0.5 * i, -i]) for i in range(4)])
    focal = np.ones((4, 2))
    first = Views(depth=depth, T_world_camera=poses, focal=focal)
    unit, T_other = 0.37, pose_from(tilted_rotation(0.8), [3, 2, 1])
    moved = poses.copy()
    moved[:, :3, 3] *= unit
    second = Views(depth=depth * np.float32(unit), T_world_camera=T_other @ moved, focal=focal)
    depth_a, poses_a, scale_a = joined(first, 2, None)
    depth_b, poses_b, scale_b = joined(second, 2, depth_a[:2])
    assert (scale_a, scale_b) == (1.0, pytest.approx(1 / unit, rel=1e-5))
    np.testing.assert_allclose(depth_b, depth_a, rtol=1e-5)
    np.testing.assert_allclose(poses_b, poses_a, atol=1e-5)
    np.testing.assert_allclose(poses_a, inverse(poses[0]) @ poses, atol=1e-12)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """The real da3-small architecture with random weights, laid out as published."""
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    folder = tmp_path_factory.mktemp("da3-small")
    torch.manual_seed(0)
    network = create_object(load_config(MODEL_REGISTRY["da3-small"]))
    with torch.no_grad():
        network.cam_dec.fc_fov[0].bias.fill_(1.0)  # a field of view of about 57 degrees
    save_model(torch.nn.ModuleDict({"model": network}), str(folder / "model.safetensors"))  # tied weights once
    (folder / "config.json").write_text(json.dumps({"model_name": "da3-small", "config": {"__object__": "ignored"}}))
    return folder


def make_clip(num_frames: int) -> Clip:
    rng = np.random.default_rng(0)
    return Clip(frames_u8=rng.integers(0, 256, (num_frames, 48, 64, 3), np.uint8), fps=10.0, source="clip.mp4")


@needs_package
def test_a_clip_becomes_depth_intrinsics_and_poses(model_folder):
    clip = make_clip(5)
    backend = Da3Reconstructor(model_folder=model_folder, max_side_px=56, views_per_run=4)
    result = backend.reconstruct(clip)
    assert result.depth_units.shape == (5, 48, 64)
    assert result.depth_units.min() > 0
    assert not result.is_metric
    np.testing.assert_allclose(result.T_world_camera[0, :3, 3], 0, atol=1e-9)
    gravity = tilted_rotation(find_horizon(clip.frames_u8[0], result.intrinsics).tilt_rad)
    np.testing.assert_allclose(result.T_world_camera[0, :3, :3], gravity, atol=1e-9)
    np.testing.assert_array_equal(backend.reconstruct(clip).depth_units, result.depth_units)  # same input, same bytes


@needs_package
def test_one_run_is_the_networks_own_output(model_folder):
    _, network = load_network(model_folder)
    images = preprocessed(make_clip(3).frames_u8, 56)
    views = see(network, images)
    with torch.inference_mode():
        output = network(images[None], ref_view_strategy="first")
    np.testing.assert_array_equal(views.depth, output["depth"][0].numpy())
    T_camera_world = inverse(views.T_world_camera)[:, :3]
    np.testing.assert_allclose(T_camera_world, output["extrinsics"][0].numpy(), atol=1e-5)
    np.testing.assert_allclose(
        views.focal[:, 0] * images.shape[-1], output["intrinsics"][0, :, 0, 0].numpy(), rtol=1e-6
    )


@needs_package
def test_missing_weights_are_named(model_folder, tmp_path):
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_network(tmp_path)
    save_file({"model.nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="weights are missing, such as model.backbone"):
        load_network(tmp_path)


@pytest.mark.parametrize("model_name", ["da3metric-large", "da3mono-large", "", "../evil"])
def test_models_without_poses_are_refused(tmp_path, model_name):
    (tmp_path / "config.json").write_text(json.dumps({"model_name": model_name}))
    with pytest.raises(InputError, match="want one of da3-small"):
        Da3Reconstructor(model_folder=tmp_path).reconstruct(make_clip(1))


@pytest.mark.skipif(importlib.util.find_spec("depth_anything_3") is not None, reason="depth-anything-3 is installed")
def test_a_missing_package_is_named_with_its_command(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-small"}))
    with pytest.raises(InputError, match="pip install --no-deps depth-anything-3"):
        Da3Reconstructor(model_folder=tmp_path).reconstruct(make_clip(1))
