import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction.one_view.align import fit_affine, fit_scale
from inspatio_sim.reconstruction.one_view.hf import (
    DepthModel,
    HfReconstructor,
    _depth,
    _fitted_to_motion,
    output_kind,
    stabilised,
)
from inspatio_sim.reconstruction.protocol import Reconstruction

transformers = pytest.importorskip("transformers", reason="the hf backend needs transformers")

H, W = 56, 84


def save_depth_anything(folder: Path, depth_estimation_type: str = "relative") -> Path:
    """A real Depth Anything, only small, with random weights."""
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        head_hidden_size=8, depth_estimation_type=depth_estimation_type,
        max_depth=10 if depth_estimation_type == "metric" else 1,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        model.head.conv3.bias.fill_(0.5)  # random weights alone may leave nothing above the last ReLU
    model.save_pretrained(folder)
    size = {"height": 56, "width": 56}
    transformers.DPTImageProcessorPil(
        size=size, keep_aspect_ratio=True, ensure_multiple_of=14, do_normalize=True
    ).save_pretrained(folder)
    return folder


def save_dpt(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
    )  # fmt: skip
    model = transformers.DPTForDepthEstimation(config)
    with torch.no_grad():
        model.head.head[4].bias.fill_(0.5)
    model.save_pretrained(folder)
    transformers.DPTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_clip(num_frames: int = 3) -> Clip:
    """A static picture with one small thing that moves."""
    rng = np.random.default_rng(0)
    frames_u8 = np.repeat(rng.integers(0, 256, (1, H, W, 3), np.uint8), num_frames, 0)
    for i in range(num_frames):
        frames_u8[i, 20:26, 10 * i : 10 * i + 6] = 255
    return Clip(frames_u8=frames_u8, fps=10.0, source="clip.mp4")


@pytest.mark.parametrize("save", [save_depth_anything, save_dpt])
def test_relative_models_give_depth_up_to_scale(tmp_path, save):
    result = HfReconstructor(model_folder=save(tmp_path)).reconstruct(make_clip())
    assert result.depth_units.shape == (3, H, W)
    assert not result.is_metric
    assert result.depth_units.min() > 0
    assert result.depth_units.max() <= 50
    np.testing.assert_array_equal(result.T_world_camera[0], result.T_world_camera[2])
    assert any("focal length assumed" in warning for warning in result.warnings)


def test_metric_model_gives_metres(tmp_path):
    folder = save_depth_anything(tmp_path, "metric")
    result = HfReconstructor(model_folder=folder).reconstruct(make_clip(1))
    assert result.is_metric
    assert result.depth_units.min() > 0
    assert result.depth_units.max() <= 10  # sigmoid times max_depth


def test_predictions_are_the_models_own(tmp_path):
    """The adapter adds nothing: same numbers as calling processor and network by hand."""
    folder = save_depth_anything(tmp_path)
    clip = make_clip(2)
    raw, fov_rad = DepthModel(folder).predict(clip.frames_u8, None)
    network = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder)
    processor = transformers.DPTImageProcessorPil.from_pretrained(folder)
    for i in range(2):
        with torch.no_grad():
            depth = network(**processor(images=clip.frames_u8[i], return_tensors="pt")).predicted_depth
        expected = torch.nn.functional.interpolate(depth[None], size=(H, W), mode="bicubic", align_corners=False)
        np.testing.assert_allclose(raw[i], expected[0, 0].numpy(), atol=1e-6)
    assert fov_rad is None


@pytest.mark.parametrize("output", ["inverse", "metric"])
def test_flicker_of_scale_is_taken_out(output):
    rng = np.random.default_rng(1)
    scene = rng.uniform(0.5, 4, (H, W)).astype(np.float32)
    scales, shifts = [1, 1.3, 0.8, 1.1, 0.9], [0, 0.2, -0.1, 0.05, 0.1] if output == "inverse" else [0] * 5
    raw = np.stack([s * scene + b for s, b in zip(scales, shifts, strict=True)]).astype(np.float32)
    clip = make_clip(5)
    raw[2, 20:26, 20:26] = 9.0  # the thing that moves really is nearer there
    stable, flicker = stabilised(raw, clip.frames_u8, output)
    still = np.ones((H, W), bool)
    still[20:26] = False
    assert flicker > 0.1
    assert np.std(stable[:, still], axis=0).max() < 1e-4
    assert np.all(stable[2, 21:25, 21:25] > 1.5 * stable[1, 21:25, 21:25].mean())  # and stays nearer


@pytest.mark.parametrize("output", ["inverse", "metric"])
def test_moving_camera_takes_scale_and_poses_from_motion(output):
    rng = np.random.default_rng(2)
    true = rng.uniform(1, 5, (2, H, W)).astype(np.float32)
    sparse = np.where(rng.random(true.shape) < 0.1, true, 0).astype(np.float32)
    sparse[0, 0, 0] = true[0, 0, 0]
    poses = np.stack([np.eye(4)] * 2)
    poses[1, 0, 3] = 1.0
    motion = Reconstruction(
        depth_units=sparse, intrinsics=Intrinsics.from_fov(1.0, W, H), T_world_camera=poses, is_metric=False
    )
    raw = 3 / true + 0.1 if output == "inverse" else 2 * true
    result = _fitted_to_motion(raw.astype(np.float32), output, motion)
    unit = 1.0 if output == "inverse" else 2.0  # metres in one unit of the motion's
    np.testing.assert_allclose(result.depth_units, unit * true, rtol=1e-3)
    np.testing.assert_allclose(result.T_world_camera[1, :3, 3], [unit, 0, 0], rtol=1e-3)
    assert result.is_metric == (output == "metric")


def test_inverse_depth_is_cut_off_far_away():
    depth = _depth(np.array([[[2.0, 1.0, 0.0]]], np.float32), "inverse")
    assert depth[0, 0, 0] == pytest.approx(1.0, rel=0.03)
    assert depth[0, 0, 1] == pytest.approx(2.0, rel=0.03)
    assert depth[0, 0, 2] == 50.0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "depth_anything"}, "inverse"),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "metric"),
        ({"model_type": "dpt"}, "inverse"),
        ({"model_type": "zoedepth"}, "metric"),
        ({"model_type": "depth_pro"}, "metric"),
    ],
)
def test_output_is_told_from_the_config(config, expected):
    assert output_kind(config, Path("m")) == expected


def test_unknown_model_types_must_be_told():
    with pytest.raises(InputError, match="model_type 'bert'"):
        output_kind({"model_type": "bert"}, Path("m"))


def edit_config(folder: Path, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_bad_folders_are_refused_in_one_line(tmp_path):
    def refused(message, folder):
        with pytest.raises(InputError, match=message) as caught:
            HfReconstructor(model_folder=folder).reconstruct(make_clip(1))
        assert "\n" not in str(caught.value)

    refused("config.json: cannot be read", tmp_path / "nothing")
    folder = save_depth_anything(tmp_path / "a")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    refused("not a depth model that transformers can load", folder)
    (folder / "model.safetensors").unlink()
    refused("not a depth model that transformers can load", folder)
    folder = save_depth_anything(tmp_path / "b")
    edit_config(folder, fusion_hidden_size=32)
    refused("weights are missing or of another shape|can load", folder)


def test_pickled_weights_are_never_opened(tmp_path):
    folder = save_depth_anything(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "owned"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError):
        HfReconstructor(model_folder=folder).reconstruct(make_clip(1))
    assert not marker.exists()


def test_code_in_the_folder_is_never_run(tmp_path):
    folder = save_depth_anything(tmp_path / "a")
    marker = tmp_path / "owned"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    edit_config(folder, auto_map={"AutoModelForDepthEstimation": "evil.Evil", "AutoConfig": "evil.Evil"})
    with contextlib.suppress(InputError):
        HfReconstructor(model_folder=folder).reconstruct(make_clip(1))
    assert not marker.exists()


def test_fits_survive_outliers():
    rng = np.random.default_rng(0)
    source = rng.uniform(1, 5, 1000)
    target = 2.5 * source + 0.7
    target[:200] = rng.uniform(0, 40, 200)
    assert fit_affine(source, target) == pytest.approx((2.5, 0.7), rel=1e-6)
    assert fit_scale(source, np.where(np.arange(1000) < 300, 99, 2.5 * source)) == pytest.approx(2.5, rel=1e-6)
    assert fit_affine(np.ones(50), np.full(50, 3.0)) == pytest.approx((3.0, 0.0))
