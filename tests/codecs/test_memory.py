"""Planned memory of codecs against what they really hold, by counted tensors and by modules."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from inspatio_sim.codecs import SdVae, TinyAutoencoder, TinyCodec, WanCodec, taew2_1, tiny_narrow
from inspatio_sim.codecs.memory import SD_PEAK, SdVaeMemory, TinyCodecMemory, WanCodecMemory
from inspatio_sim.codecs.sd_vae import sdxl_network
from inspatio_sim.codecs.tiny_network import TinyConfig
from inspatio_sim.codecs.wan import wan_network
from tests.peak_bytes import PeakBytes

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_latents", [1, 3])
@pytest.mark.parametrize("config", [taew2_1(), tiny_narrow()], ids=["published", "narrow"])
def test_tiny_codec(config: TinyConfig, num_latents: int, dtype: torch.dtype) -> None:
    height, width = 16, 24
    codec = TinyCodec(TinyAutoencoder(config).to(dtype).eval().requires_grad_(False))
    video = torch.zeros(1, 4 * num_latents, 3, 8 * height, 8 * width)
    encoder = codec.encode_chunk(video[:, :1])[1]
    decoder = codec.decode_chunk(torch.zeros(1, 1, config.latent_channels, height, width))[1]
    with PeakBytes() as encoding:
        codec.encode_chunk(video, encoder)
    with PeakBytes() as decoding:
        codec.decode_chunk(torch.zeros(1, num_latents, config.latent_channels, height, width), decoder)
    memory = TinyCodecMemory(config)
    peak = max(encoding.peak, decoding.peak) + video.nbytes
    assert memory.weight_bytes(dtype) == sum(p.nbytes for p in codec.network.parameters())
    assert memory.peak_bytes(height, width, num_latents, dtype) == pytest.approx(peak, rel=0.05)
    state = sum(t.nbytes for t in [*encoder.values(), *decoder.values()])
    assert memory.state_bytes(height, width, dtype) == pytest.approx(state, rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_wan_codec(dtype: torch.dtype) -> None:
    pytest.importorskip("diffusers")
    height, width = 30, 52
    with torch.device("meta"):
        vae = wan_network().to(dtype)
        codec = WanCodec(vae)
        decoder = codec.decode_chunk(torch.empty(1, 1, 16, height, width))[1]
        encoder = codec.encode_chunk(torch.empty(1, 1, 3, 8 * height, 8 * width))[1]
        with PeakBytes() as decoding:
            codec.decode_chunk(torch.empty(1, 3, 16, height, width), decoder)
    memory = WanCodecMemory()
    assert memory.weight_bytes(dtype) == sum(p.nbytes for p in vae.parameters())
    assert memory.peak_bytes(height, width, 3, dtype) == pytest.approx(decoding.peak, rel=0.1)
    state = sum(t.nbytes for t in [*encoder.values(), *decoder.values()])
    assert memory.state_bytes(height, width, dtype) == pytest.approx(state, rel=0.01)


def test_image_codec() -> None:
    pytest.importorskip("diffusers")
    with FakeTensorMode(), torch.no_grad():
        codec = SdVae(sdxl_network())
        with PeakBytes() as decoding:
            codec.decode(torch.empty(1, 4, 32, 32))
        with PeakBytes() as encoding:
            codec.encode(torch.empty(1, 3, 256, 256))
    assert 0.9 * SD_PEAK < decoding.peak / (4 * 256 * 256) <= 1.01 * SD_PEAK
    assert encoding.peak < decoding.peak
    memory = SdVaeMemory()
    assert memory.peak_bytes(32, 32, 1, torch.float32) == 4 * 256 * 256 * SD_PEAK
    assert memory.weight_bytes(torch.bfloat16) == 2 * 83_653_863
