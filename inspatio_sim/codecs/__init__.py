"""Frames go in, latents come out, and back: whole clips, or streams chunk by chunk.

`protocol.Codec` is what each codec of video offers, `image.ImageCodec` what each one of single images does.
"""

from inspatio_sim.codecs.image import ImageCodec, SingleFrames
from inspatio_sim.codecs.protocol import Codec, CodecState
from inspatio_sim.codecs.sd_vae import SdVae
from inspatio_sim.codecs.tiny import TinyCodec
from inspatio_sim.codecs.tiny_network import TinyAutoencoder, TinyConfig, taew2_1, tiny_narrow
from inspatio_sim.codecs.wan import WanCodec

__all__ = [
    "Codec",
    "CodecState",
    "ImageCodec",
    "SdVae",
    "SingleFrames",
    "TinyAutoencoder",
    "TinyCodec",
    "TinyConfig",
    "WanCodec",
    "taew2_1",
    "tiny_narrow",
]
