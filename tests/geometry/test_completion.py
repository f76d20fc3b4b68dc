import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.geometry import completion
from inspatio_sim.geometry.complete import complete_depth
from inspatio_sim.geometry.completion import SHIPPED_NETWORK, NetworkCompletion, depth_completion, push_pull
from inspatio_sim.geometry.depth_network import (
    DepthNetwork,
    DepthNetworkConfig,
    load_depth_network,
    save_depth_network,
)
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.target_view import target_view

SMALL = DepthNetworkConfig(widths=(8, 16, 16))
needs_weights = pytest.mark.skipif(not SHIPPED_NETWORK.is_file(), reason="the depth network's weights are missing")


def small_network(seed=0):
    torch.manual_seed(seed)
    network = DepthNetwork(SMALL)
    torch.nn.init.normal_(network.last.weight, std=0.3)
    return network.eval()


def block(num_frames=3, size_px=(24, 40), seed=0):
    """Frames of which the first is wholly known, the last wholly unknown."""
    rng = np.random.default_rng(seed)
    rgb_u8 = rng.integers(0, 256, (num_frames, *size_px, 3), dtype=np.uint8)
    depth_m = rng.uniform(1, 4, (num_frames, *size_px)).astype(np.float32)
    depth_m[1:-1, :, size_px[1] // 2 :] = 0
    depth_m[-1] = 0
    return rgb_u8, depth_m


def test_known_depth_stays_and_the_rest_is_filled_with_what_came_left_alone():
    rgb_u8, depth_m = block()
    before = depth_m.copy()
    completed_m = NetworkCompletion(small_network())(rgb_u8, depth_m, 3.0)
    assert np.array_equal(completed_m[depth_m > 0], depth_m[depth_m > 0])
    assert np.isfinite(completed_m).all()
    assert completed_m.min() > 0
    assert np.array_equal(depth_m, before)
    completed_m[:] = 0
    assert np.array_equal(depth_m, before)


def test_metres_scale_with_what_is_known_and_with_the_fallback():
    rgb_u8, depth_m = block()
    complete = NetworkCompletion(small_network())
    np.testing.assert_allclose(complete(rgb_u8, 7 * depth_m, 21.0), 7 * complete(rgb_u8, depth_m, 3.0), rtol=0.02)
    assert np.median(complete(rgb_u8, depth_m, 3.0)[-1]) == pytest.approx(3.0, rel=0.02)


def test_the_same_block_gets_the_same_depth():
    rgb_u8, depth_m = block()
    first, second = (NetworkCompletion(small_network())(rgb_u8, depth_m, 3.0) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size_px", [(96, 160), (100, 171), (240, 416)])
def test_large_pictures_are_looked_at_smaller(size_px):
    rgb_u8, depth_m = block(size_px=size_px)
    completed_m = NetworkCompletion(small_network())(rgb_u8, depth_m, 3.0)
    assert np.array_equal(completed_m[depth_m > 0], depth_m[depth_m > 0])
    assert (completed_m > 0).all()


def test_the_choice(tmp_path, monkeypatch):
    path = tmp_path / "depth.safetensors"
    monkeypatch.setattr(completion, "SHIPPED_NETWORK", path)
    completion.shipped_completion.cache_clear()
    try:
        assert depth_completion("auto", looks_real=True) is push_pull
        with pytest.raises(InputError, match="want the depth network's weights"):
            depth_completion("network", looks_real=True)
        save_depth_network(path, SMALL, small_network().state_dict(), {})
        assert isinstance(depth_completion("auto", looks_real=True), NetworkCompletion)
        assert isinstance(depth_completion("network", looks_real=False), NetworkCompletion)
        assert depth_completion("auto", looks_real=False) is push_pull
        assert depth_completion("push-pull", looks_real=True) is push_pull
    finally:
        completion.shipped_completion.cache_clear()


def test_push_pull_is_frame_by_frame():
    rgb_u8, depth_m = block()
    expected = [complete_depth(frame_m, 3.0) for frame_m in depth_m]
    assert np.array_equal(push_pull(rgb_u8, depth_m, 3.0), np.stack(expected))


def test_files_come_back_and_are_the_same_bytes_again(tmp_path):
    network, notes = small_network(), {"steps": 3}
    for name in ("a", "b"):
        save_depth_network(tmp_path / name, SMALL, network.state_dict(), notes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_depth_network(tmp_path / "a")
    assert loaded.config == SMALL
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointMismatch, match="not a depth network"):
        load_depth_network(path)
    weights = small_network().state_dict()
    save_depth_network(path, DepthNetworkConfig(widths=(8, 16, 24)), weights, {})
    with pytest.raises(CheckpointMismatch, match="of another shape"):
        load_depth_network(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or no safetensors"):
        load_depth_network(path)


@needs_weights
def test_the_shipped_network_sees_more_than_push_pull_does():
    """On two worlds it was never trained on; benchmarks.depth has the numbers."""
    assert SHIPPED_NETWORK.stat().st_size <= 5e6
    complete = depth_completion("network", looks_real=True)
    errors = {"network": [], "push_pull": []}
    for seed in (900_100, 900_101):
        clip = ProceduralClips(ProceduralConfig(seed=seed, num_frames=4, fps=1.2, length=1))[0]
        is_known = target_view(clip).is_rendered
        known_m = np.where(is_known, clip.target_depth_m, np.float32(0))
        is_asked = ~is_known & (clip.target_depth_m > 0)
        for name, way in (("network", complete), ("push_pull", push_pull)):
            completed_m = way(clip.target_u8, known_m, 3.0)
            errors[name].append(np.abs(completed_m[is_asked] / clip.target_depth_m[is_asked] - 1))
    by_network, by_push_pull = (np.median(np.concatenate(found)) for found in errors.values())
    assert by_network < 0.7 * by_push_pull
    assert by_network < 0.12
