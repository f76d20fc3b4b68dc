"""What earlier stages of a frame run left: where it lies, or what stands in for it."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import numpy as np
import torch

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.codecs import TinyAutoencoder
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.frame_config import expected_shapes
from inspatio_sim.generators.presets.keys import compare
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.training.engine.earlier import Earlier
from inspatio_sim.training.frame.configs import FrameRunConfig
from inspatio_sim.training.frame.start import start_frame

logger = logging.getLogger(__name__)

CODEC_FILE = Path("tiny") / "tiny_codec.safetensors"  # among the shipped weights


def shipped_name(config: FrameRunConfig) -> str:
    """Of the file that the package carries."""
    return f"{config.name.replace('-', '_')}.safetensors"


def result_path(config: FrameRunConfig, stage: str) -> Path:
    """Where a stage leaves its averaged weights."""
    name = f"{config.name}_{stage}".replace("-", "_")
    return config.folder / stage / f"{name}.safetensors"


def find_earlier(config: FrameRunConfig, stage: str) -> Earlier | None:
    """The result of a stage: of this run, else the student that ships, else random if allowed."""
    own = result_path(config, stage)
    if own.is_file():
        return Earlier(stage=stage, kind="run", path=own)
    shipped = find.SHIPPED / config.name / shipped_name(config)
    if shipped.is_file() and _fits(shipped, config):
        return Earlier(stage=stage, kind="shipped", path=shipped)
    return Earlier(stage=stage, kind="random", path=None) if config.random_stand_ins else None


def found_earlier(config: FrameRunConfig, stage: str) -> Earlier:
    """The same, which has to be there.

    Raises:
        InputError: it is not; names the stage to run first.
    """
    earlier = find_earlier(config, stage)
    if earlier is None:
        want = f"run inspatio-sim train frame --stage {stage} --config {config.name} --out {config.folder} first"
        raise InputError(f"{result_path(config, stage)}: no such file, and none is shipped that fits: {want}")
    return earlier


def earlier_frame(config: FrameRunConfig, stage: str) -> FrameTransformer:
    """The transformer that a stage left."""
    found = found_earlier(config, stage)
    return new_frame(config, stage) if found.path is None else frame_from(config, found.path)


def frame_from(config: FrameRunConfig, path: Path) -> FrameTransformer:
    """A transformer out of a file."""
    with torch.device("meta"):
        network = FrameTransformer(config.frame)
    load_weights(network, path, dtype=torch.float32)
    return network


def new_frame(config: FrameRunConfig, stage: str) -> FrameTransformer:
    """A transformer as training begins with; the same numbers for the same seed and stage."""
    with torch.random.fork_rng(devices=[]):
        _seed(config, stage)
        network = FrameTransformer(config.frame)
        start_frame(network)
    return network


def tiny_codec(config: FrameRunConfig) -> TinyAutoencoder:
    """The video codec whose single frames are the images, frozen: as shipped, or random if allowed."""
    assert config.codec is not None, "the published image codec is another"
    path = find.SHIPPED / CODEC_FILE
    if config.random_stand_ins:
        with torch.random.fork_rng(devices=[]):
            _seed(config, "codec")
            return TinyAutoencoder(config.codec).requires_grad_(False).eval()
    with torch.device("meta"):
        network = TinyAutoencoder(config.codec)
    if not path.is_file():
        raise InputError(f"{path}: no such file: run inspatio-sim train ship --config tiny first")
    load_weights(network, path, dtype=torch.float32)
    return network.requires_grad_(False).eval()


def _seed(config: FrameRunConfig, what: str) -> None:
    key = [config.seed, zlib.crc32(what.encode())]
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def _fits(path: Path, config: FrameRunConfig) -> bool:
    try:
        with open_checkpoint(path) as checkpoint:
            shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        compare(expected_shapes(config.frame), shapes, str(path))
    except CheckpointMismatch as error:
        logger.warning("shipped weights are passed over: %s", error)
        return False
    return True
