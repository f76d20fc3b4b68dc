"""The CPU's form of the transformer equals the plain one; its kernels are tested beside the video model's."""

from dataclasses import replace

import pytest
import torch

from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from tests.generators.frame.small import SMALL, make_transformer, random_images

T = torch.tensor([999])
BF16_STEP = 2.0**-8  # largest relative error of one rounding to bfloat16


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("learns_sigma", [False, True])
def test_it_equals_the_plain_network(is_alone, depth, learns_sigma):
    transformer = make_transformer(replace(SMALL, depth=depth, learns_sigma=learns_sigma))
    x, *others = random_images(transformer.config, batch=2)
    seen = () if is_alone else others
    plain = transformer(x, T, *seen)
    fast = CpuFrameTransformer(transformer)
    torch.testing.assert_close(fast(x, T, *seen), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.denoise(x, fast.modulation(T), *seen), plain, atol=1e-5, rtol=0)


def test_it_equals_the_plain_network_without_onednn(monkeypatch):
    transformer = make_transformer()
    x, anchors, reference = random_images()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    unpacked = CpuFrameTransformer(transformer)(x, T, anchors, reference)
    torch.testing.assert_close(unpacked, transformer(x, T, anchors, reference), atol=1e-5, rtol=0)


def test_weights_may_be_taken_over():
    transformer = make_transformer()
    x, anchors, reference = random_images()
    kept = CpuFrameTransformer(transformer)(x, T, anchors, reference)
    taken = CpuFrameTransformer(transformer, take_over=True)
    assert not any("attn" in name or "mlp.fc" in name for name, _ in transformer.named_parameters())
    assert torch.equal(taken(x, T, anchors, reference), kept)


def test_inputs_are_left_as_they_are():
    network = CpuFrameTransformer(make_transformer())
    images = random_images()
    copies = [image.clone() for image in images]
    x, anchors, reference = images
    first = network(x, T, anchors, reference)
    assert torch.equal(network(x, T, anchors, reference), first)
    assert all(torch.equal(image, copied) for image, copied in zip(images, copies, strict=True))


def test_all_worlds_share_a_timestep():
    network = CpuFrameTransformer(make_transformer())
    with pytest.raises(AssertionError, match="one modulation for all worlds"):
        network.modulation(torch.tensor([999, 200]))
    assert network.modulation(torch.tensor([999, 999])).head_scale.shape == (1, 1, SMALL.hidden_size)


@pytest.mark.parametrize("depth", [1, 4])
def test_bfloat16_is_no_worse_than_the_plain_network(depth):
    """Both round about nine times a layer; ours keeps the residual stream in float32, so it may not be worse.

    Against the same rounded weights in float32, relative to the result's size.
    """
    rounded = make_transformer(replace(SMALL, depth=depth), dtype=torch.bfloat16)
    exact = make_transformer(rounded.config)
    exact.load_state_dict({name: weight.float() for name, weight in rounded.state_dict().items()})
    x, anchors, reference = random_images(grid=(8, 12), batch=2)
    expected = exact(x, T, anchors, reference)

    def error(network):
        result = network(x, T, anchors, reference)
        assert result.dtype == torch.bfloat16
        return ((result.float() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()).item()

    fast, plain = error(CpuFrameTransformer(rounded)), error(rounded)
    assert fast < 1.2 * plain
    # n independent roundings of relative size up to 2^-8 / sqrt(3) add up to sqrt(n) of them
    assert fast < (9 * depth + 2) ** 0.5 * BF16_STEP / 3**0.5
