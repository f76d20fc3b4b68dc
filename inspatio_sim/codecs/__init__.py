"""Frames go in, latents come out, and back: whole clips, or streams chunk by chunk.

`protocol.Codec` is what each codec offers.
"""

from inspatio_sim.codecs.protocol import Codec, CodecState
from inspatio_sim.codecs.tiny import TinyCodec
from inspatio_sim.codecs.tiny_network import TinyAutoencoder, TinyConfig, taew2_1, tiny_narrow
from inspatio_sim.codecs.wan import WanCodec

__all__ = [
    "Codec",
    "CodecState",
    "TinyAutoencoder",
    "TinyCodec",
    "TinyConfig",
    "WanCodec",
    "taew2_1",
    "tiny_narrow",
]
