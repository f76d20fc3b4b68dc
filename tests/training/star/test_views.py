import numpy as np
import pytest
import torch

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.text import HashedWords
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.data.target_view import target_view
from inspatio_sim.training.star.views import NONE, Augment, encode_sample, with_faults

T, H, W = 9, 16, 24
ALL = Augment(unknown_view=1, no_reference=1, no_caption=1)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    path = np.repeat(np.eye(4)[None], T, axis=0)
    target = path.copy()
    target[:, 0, 3] = np.linspace(0, 0.4, T)  # to the right
    return Sample(
        reference_u8=rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        target_u8=rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        reference_depth_m=np.full((T, H, W), 2.0, np.float32),
        target_depth_m=np.full((T, H, W), 2.0, np.float32),
        intrinsics=Intrinsics(fx_px=20, fy_px=20, cx_px=(W - 1) / 2, cy_px=(H - 1) / 2, width_px=W, height_px=H),
        T_world_reference=path,
        T_world_target=target,
        caption="a room",
    )


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    network = TinyAutoencoder(TinyConfig(encoder_width=4, decoder_widths=(8, 4, 4, 4), time_alignment="causal"))
    return TinyCodec(network.eval().requires_grad_(False))


def test_a_wall_moves_by_its_parallax(sample):
    view = target_view(sample)
    assert view.is_rendered[0].all()
    assert np.array_equal(view.render_u8[0], sample.reference_u8[0])
    shift_px = 4  # 20 px * 0.4 m / 2 m
    assert np.array_equal(view.render_u8[-1, :, : W - shift_px], sample.reference_u8[-1, :, shift_px:])
    assert not view.is_rendered[-1, :, W - shift_px + 1 :].any()
    assert (view.render_u8[~view.is_rendered] == 0).all()


def test_no_fault_changes_nothing(sample):
    same, is_unknown = with_faults(sample, NONE, np.random.default_rng(0))
    assert np.array_equal(same.reference_depth_m, sample.reference_depth_m)
    assert np.array_equal(same.reference_u8, sample.reference_u8)
    assert same.caption == sample.caption
    assert not is_unknown


def test_faults_are_as_large_as_they_should_be(sample):
    augment = Augment(depth_scale=0, depth_noise=0.1, dropped_points=0.25)
    faulty, _ = with_faults(sample, augment, np.random.default_rng(0))
    known = faulty.reference_depth_m > 0
    assert 0.2 < 1 - known.mean() < 0.3
    assert 0.09 < np.log(faulty.reference_depth_m[known] / 2).std() < 0.11
    scaled, _ = with_faults(sample, Augment(depth_scale=0.5, depth_noise=0, dropped_points=0), np.random.default_rng(0))
    factor = scaled.reference_depth_m / sample.reference_depth_m
    assert factor.std() < 1e-6
    assert abs(float(factor.mean()) - 1) > 0.01


def test_one_setting_does_not_shift_the_others(sample):
    a, _ = with_faults(sample, Augment(depth_noise=0), np.random.default_rng(3))
    b, _ = with_faults(sample, Augment(depth_noise=0.1), np.random.default_rng(3))
    assert np.array_equal(a.reference_depth_m == 0, b.reference_depth_m == 0)


def test_an_encoded_clip_has_what_the_networks_take(sample, codec):
    text = HashedWords(text_dim=16, text_len=4)
    encoded = encode_sample(sample, codec, text, NONE, np.random.default_rng(0))
    assert {name: tuple(tensor.shape) for name, tensor in encoded.items()} == {
        "target": (3, 16, 2, 3),
        "reference": (3, 16, 2, 3),
        "view": (3, 20, 2, 3),
        "text": (4, 16),
    }
    assert torch.equal(encoded["text"], text.encode("a room"))
    assert (encoded["view"][0, 0] == 1).all()  # the first view is the reference's own
    assert encoded["view"][2, 3].min() < 1  # at the end some of it is unknown
    again = encode_sample(sample, codec, text, Augment(), np.random.default_rng(5))
    same = encode_sample(sample, codec, text, Augment(), np.random.default_rng(5))
    assert all(torch.equal(again[name], same[name]) for name in again)


def test_all_faults_leave_the_target_alone(sample, codec):
    text = HashedWords(text_dim=16, text_len=4)
    whole = encode_sample(sample, codec, text, NONE, np.random.default_rng(0))
    faulty = encode_sample(sample, codec, text, ALL, np.random.default_rng(0))
    assert torch.equal(whole["target"], faulty["target"])
    assert (faulty["view"][:, :4] == -1).all()  # unknown is -1; 0 would say that there is no such condition
    assert (faulty["text"] == 0).all()
    assert not torch.equal(whole["reference"], faulty["reference"])


def test_frames_beyond_whole_latents_are_dropped(sample, codec):
    text = HashedWords(text_dim=16, text_len=4)
    longer = {
        name: np.concatenate([value, value[:2]]) if isinstance(value, np.ndarray) else value
        for name, value in vars(sample).items()
    }
    encoded = encode_sample(Sample(**longer), codec, text, NONE, np.random.default_rng(0))
    expected = encode_sample(sample, codec, text, NONE, np.random.default_rng(0))
    assert all(torch.equal(encoded[name], expected[name]) for name in expected)


def test_shares_are_shares():
    with pytest.raises(InputError, match=r"unknown_view=1\.5: want 0 to 1"):
        Augment(unknown_view=1.5)
