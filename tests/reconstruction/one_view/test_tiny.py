import numpy as np
import pytest
import torch

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.geometry import completion
from inspatio_sim.geometry.completion import SHIPPED_NETWORK
from inspatio_sim.geometry.depth_network import DepthNetwork, DepthNetworkConfig, save_depth_network
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reconstruction.one_view.tiny import TinyReconstructor
from inspatio_sim.reconstruction.scale import ScaleRequest
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig

SIZE_PX = (48, 80)


@pytest.fixture
def random_weights(tmp_path, monkeypatch):
    """A small network that says something, if nothing true, in place of the shipped one."""
    torch.manual_seed(0)
    config = DepthNetworkConfig(widths=(8, 16, 16))
    network = DepthNetwork(config)
    torch.nn.init.normal_(network.last.weight, std=0.3)
    path = tmp_path / "depth.safetensors"
    save_depth_network(path, config, network.state_dict(), {})
    monkeypatch.setattr(completion, "SHIPPED_NETWORK", path)
    completion.shipped_completion.cache_clear()
    yield path
    completion.shipped_completion.cache_clear()


def static_clip(num_frames=4):
    """A textured view with a bright square that wanders to the right."""
    rng = np.random.default_rng(0)
    background_u8 = rng.integers(60, 120, (*SIZE_PX, 3), dtype=np.uint8)
    frames_u8 = np.repeat(background_u8[None], num_frames, axis=0)
    for i in range(num_frames):
        frames_u8[i, 20:36, 4 + 18 * i : 20 + 18 * i] = 255
    return Clip(frames_u8=frames_u8, fps=10.0, source="static"), background_u8


def test_what_stands_still_keeps_its_depth_and_what_moves_gets_its_own(random_weights):
    clip, _ = static_clip()
    result = TinyReconstructor().reconstruct(clip)
    depth = result.depth_units
    assert np.array_equal(depth[0, :8], depth[3, :8])
    assert np.array_equal(depth[0, 20:36, 70:], depth[1, 20:36, 70:])
    assert not np.array_equal(depth[0, 24:32, 8:16], depth[2, 24:32, 8:16])
    assert not result.is_metric
    assert np.array_equal(result.T_world_camera, np.repeat(result.T_world_camera[:1], 4, axis=0))
    assert any("guess from one view" in warning for warning in result.warnings)


def test_the_same_clip_gives_the_same_depth(random_weights):
    clip, _ = static_clip()
    first, second = (TinyReconstructor().reconstruct(clip).depth_units for _ in range(2))
    assert np.array_equal(first, second)


def test_scale_is_the_usual_one_or_what_was_measured(random_weights):
    clip, _ = static_clip(1)
    plain = reconstruct(clip, "tiny")
    assert plain.provenance.method == "tiny"
    assert np.median(plain.depth_m[0]) == pytest.approx(3.0, rel=1e-3)
    ends = ((10.0, 10.0), (70.0, 40.0))
    longer = [reconstruct(clip, "tiny", scale=ScaleRequest(length_m=m, length_pixels=ends)).depth_m for m in (1.0, 4.0)]
    np.testing.assert_allclose(longer[1], 4 * longer[0], rtol=1e-5)


def test_intrinsics_of_the_clip_are_kept_and_progress_is_told(random_weights):
    frames_u8 = static_clip()[0].frames_u8
    camera = Intrinsics.from_fov(1.3, SIZE_PX[1], SIZE_PX[0])
    seen = []
    result = TinyReconstructor().reconstruct(
        Clip(frames_u8=frames_u8, fps=10.0, source="static", intrinsics=camera),
        lambda what, share: seen.append((what, share)),
    )
    assert result.intrinsics == camera
    assert not any("focal length assumed" in warning for warning in result.warnings)
    assert seen[-1] == ("tiny", 1.0)


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="horizontal_fov_rad=3"):
        TinyReconstructor(horizontal_fov_rad=3)
    monkeypatch.setattr(completion, "SHIPPED_NETWORK", tmp_path / "none.safetensors")
    completion.shipped_completion.cache_clear()
    with pytest.raises(InputError, match="no such file"):
        TinyReconstructor().reconstruct(static_clip()[0])


@pytest.mark.skipif(not SHIPPED_NETWORK.is_file(), reason="the depth network's weights are not there")
def test_it_knows_near_from_far_in_worlds_it_never_saw():
    errors, errors_of_flat = [], []
    for seed in range(900_200, 900_204):
        sample = ProceduralClips(ProceduralConfig(seed=seed, num_frames=1, length=1))[0]
        clip = Clip(frames_u8=sample.target_u8, fps=10.0, source="made up", intrinsics=sample.intrinsics)
        true_m = sample.target_depth_m[0]
        guessed = TinyReconstructor().reconstruct(clip).depth_units[0]
        errors.append(aligned_error(guessed, true_m))
        errors_of_flat.append(aligned_error(np.ones_like(guessed), true_m))
    assert np.mean(errors) < 0.7 * np.mean(errors_of_flat)


def aligned_error(depth, true_m):
    ratio = depth[true_m > 0] / true_m[true_m > 0]
    return np.median(np.abs(ratio / np.median(ratio) - 1))
