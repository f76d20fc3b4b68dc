"""The tiny video autoencoder against the reference implementation: whole clips, and the same in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.codecs.tiny import TinyCodec
from inspatio_sim.codecs.tiny_network import TinyAutoencoder, TinyConfig

TOLERANCE = 5e-5
RULE_SEED = 62000


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Encode and decode; the stored videos are in [0, 1], ours in [-1, 1]."""
    codec = TinyCodec(_network(case))
    video, latents = case["in.video"] * 2 - 1, case["in.latent"]

    def compare(name: str, key: str, computed: Tensor) -> None:
        report.compare(f"{case.name}/{name}", key, computed, case[key], tolerance=TOLERANCE, unit="1")

    encoded = codec.encode(video)
    compare("encode", "out.encode.parallel", encoded)
    compare("decode", "out.decode.parallel", (codec.decode(latents) + 1) / 2)
    compare("decode", "out.roundtrip.decode", (codec.decode(encoded) + 1) / 2)

    complete, state = codec.encode_complete(video)
    streamed = torch.cat([complete, codec.finish(state)], dim=1)
    compare("encode in chunks", "out.encode.streaming", streamed)
    chunks, state = [], None
    for latent in latents.split(1, dim=1):
        frames, state = codec.decode_chunk(latent, state)
        chunks.append(frames)
    compare("decode in chunks", "out.decode.streaming", (torch.cat(chunks, dim=1) + 1) / 2)


def _network(case: GoldenCase) -> TinyAutoencoder:
    config = TinyConfig(
        encoder_width=case.setting("encoder_width"),
        decoder_widths=tuple(case.setting("decoder_widths")),
        latent_channels=case.setting("latent_channels"),
    )
    weights = {key.removeprefix("weights."): case[key] for key, _ in case.matching(r"weights\..+")}
    if not weights:
        weights = {entry["key"]: _by_rule(entry) for entry in case.setting("weights")}
    with torch.device("meta"):
        network = TinyAutoencoder(config)
    network.load_state_dict(weights, strict=True, assign=True)
    return network


def _by_rule(entry: dict[str, Any]) -> Tensor:
    """A weight that is described instead of stored."""
    normals = np.random.RandomState(RULE_SEED + entry["index"]).standard_normal(entry["shape"])  # noqa: NPY002
    return torch.from_numpy((normals * entry["scale"] + entry["offset"]).astype(np.float32))
