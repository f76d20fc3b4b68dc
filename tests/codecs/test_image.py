"""A video codec on single images: each the first frame of a stream of its own, latents scaled."""

from __future__ import annotations

import pytest
import torch

from inspatio_sim.codecs import ImageCodec, SingleFrames, TinyAutoencoder, TinyCodec, tiny_narrow
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.find import SHIPPED
from inspatio_sim.generators.presets.load import load_weights

H, W = 48, 64
SCALE = 1.4


@pytest.fixture(scope="module")
def video_codec() -> TinyCodec:
    with torch.device("meta"):
        network = TinyAutoencoder(tiny_narrow())
    load_weights(network, SHIPPED / "tiny" / "tiny_codec.safetensors", dtype=torch.float32)
    return TinyCodec(network.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def codec(video_codec) -> SingleFrames:
    return SingleFrames(video_codec, SCALE)


def smooth_images(batch: int) -> torch.Tensor:
    """Colour gradients, each of its own direction. [B, 3, H, W]"""
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    angles = torch.arange(3 * batch).view(batch, 3, 1, 1) * 0.7
    return 0.8 * (angles.cos() * x + angles.sin() * y) / 2**0.5


def test_an_image_is_the_first_frame_of_a_stream(codec, video_codec):
    as_protocol: ImageCodec = codec  # checked by type
    assert (as_protocol.latent_channels, as_protocol.spatial_stride) == (32, 8)
    images = smooth_images(2)
    latents = codec.encode(images)
    assert latents.shape == (2, 32, H // 8, W // 8)
    assert torch.equal(latents, video_codec.encode(images[:, None])[:, 0] * SCALE)
    assert torch.equal(codec.decode(latents), video_codec.decode(latents[:, None] / SCALE)[:, 0])


def test_what_is_encoded_comes_back(codec):
    images = smooth_images(3)
    back = codec.decode(codec.encode(images))
    assert back.shape == images.shape
    assert (back - images).square().mean() < 4 * 10 ** (-30 / 10)  # 30 dB over the range of 2


def test_the_scale_changes_latents_and_nothing_else(codec, video_codec):
    plain, images = SingleFrames(video_codec, 1.0), smooth_images(1)
    torch.testing.assert_close(codec.encode(images), SCALE * plain.encode(images))
    torch.testing.assert_close(codec.decode(SCALE * plain.encode(images)), plain.decode(plain.encode(images)))
    assert 0.3 < float(codec.encode(smooth_images(8)).std()) < 3


def test_a_batch_is_each_of_its_images(codec):
    images = smooth_images(3)
    alone = torch.cat([codec.encode(image[None]) for image in images])
    torch.testing.assert_close(codec.encode(images), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        codec.decode(alone), torch.cat([codec.decode(latent[None]) for latent in alone]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_none(video_codec, scale):
    with pytest.raises(InputError, match="latent_scale=.*want a number above 0"):
        SingleFrames(video_codec, scale)


def test_sizes_that_are_no_multiples_are_refused(codec):
    with pytest.raises(InputError, match="height 20 px came: want a multiple of 8"):
        codec.encode(torch.zeros(1, 3, 20, 24))
