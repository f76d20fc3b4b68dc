"""What earlier stages left: where it lies, or what stands in for it."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import TinyAutoencoder
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.keys import compare
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.star.configs import RunConfig
from inspatio_sim.training.star.start import start_codec, start_transformer

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)
_PRESET_ROLES: dict[str, Role] = {"codec": "codec", "t2v-teacher": "transformer"}


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Weights that a stage begins with or works against."""

    stage: str  # that they are the result of
    kind: Literal["run", "shipped", "published", "random"]
    path: Path | None  # None: random numbers

    @property
    def shown(self) -> str:
        """In words."""
        return str(self.path) if self.kind == "run" else f"{self.kind}: {self.path or 'seeded numbers, never trained'}"


def result_path(config: RunConfig, stage: str) -> Path:
    """Where a stage leaves its averaged weights, under the name that they ship by."""
    return config.folder / stage / f"{_result_name(config, stage)}.safetensors"


def find_earlier(config: RunConfig, stage: str) -> Earlier | None:
    """The result of a stage: of this run, else as shipped with the package or published, else random if allowed."""
    own = result_path(config, stage)
    if own.is_file():
        return Earlier(stage=stage, kind="run", path=own)
    shipped = find.SHIPPED / config.name
    names = [_result_name(config, stage), *([config.name] if stage == "init" else [])]
    for path in (shipped / f"{name}.safetensors" for name in names):
        if path.is_file() and _fits(path, config, stage):
            return Earlier(stage=stage, kind="shipped", path=path)
    if config.preset and stage in _PRESET_ROLES:
        preset = star_preset(config.preset)
        path = find.find_file(preset, preset.wanted(_PRESET_ROLES[stage]), find.weights_folders())
        if path:
            return Earlier(stage=stage, kind="published", path=path)
    return Earlier(stage=stage, kind="random", path=None) if config.random_stand_ins else None


def earlier_codec(config: RunConfig) -> TinyAutoencoder:
    """The trained codec, frozen."""
    found = found_earlier(config, "codec")
    return _filled(lambda: TinyAutoencoder(config.codec), config, found).requires_grad_(False).eval()


def earlier_star(config: RunConfig, stage: str) -> StarTransformer:
    """The transformer that a stage left."""
    return _filled(lambda: StarTransformer(config.star), config, found_earlier(config, stage))


def new_codec(config: RunConfig, start: Path | None) -> TinyAutoencoder:
    """A codec to train: from a file, or random."""
    kind = "run" if start else "random"
    begins = Earlier(stage="codec", kind=kind, path=start)
    return _filled(lambda: _started(TinyAutoencoder(config.codec), start_codec), config, begins)


def new_teacher(config: RunConfig, stage: str, start: Path | None) -> StarTransformer:
    """A teacher to train: from a file, the published model that the config names, or random."""
    begins = Earlier(stage=stage, kind="run" if start else "random", path=start)
    if start is None and config.preset:
        preset = star_preset(config.preset)
        begins = Earlier(stage=stage, kind="published", path=find.find_weights(preset)["transformer"])
    return _filled(lambda: _started(StarTransformer(config.star), start_transformer), config, begins)


def star_from(config: RunConfig, start: Path) -> StarTransformer:
    """A transformer out of a file."""
    return _filled(lambda: StarTransformer(config.star), config, Earlier(stage="", kind="run", path=start))


def found_earlier(config: RunConfig, stage: str) -> Earlier:
    """The same, which has to be there.

    Raises:
        InputError: it is not; names the stage to run first.
    """
    earlier = find_earlier(config, stage)
    if earlier is None:
        want = f"run inspatio-sim train {stage} --config {config.name} --out {config.folder} first"
        if config.preset and stage in _PRESET_ROLES:
            wanted = star_preset(config.preset).wanted(_PRESET_ROLES[stage])
            want += f"; or have {find.missing_text(wanted, 'weights')}; and name the folder in {find.ENVIRONMENT}"
        raise InputError(f"{result_path(config, stage)}: no such file, and none is shipped that fits: {want}")
    return earlier


def _started(network: Module, start: Callable[[Module], None]) -> Module:
    """A network with the weights that training begins with. Made without numbers, it stays without."""
    if not next(network.parameters()).is_meta:
        start(network)
    return network


def _filled(make: Callable[[], Module], config: RunConfig, weights: Earlier) -> Module:
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            key = [config.seed, zlib.crc32(weights.stage.encode())]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
            return make()
    with torch.device("meta"):
        module = make()
    load_weights(module, weights.path, dtype=torch.float32, widen=_is_base(weights.path, config))
    return module


def _is_base(path: Path, config: RunConfig) -> bool:
    """Whether a file is a text-to-video model, without channels for mask and render."""
    with open_checkpoint(path) as checkpoint:
        embeddings = [info for name, info in checkpoint.tensors.items() if name.endswith("patch_embedding.weight")]
    return any(info.shape[1] == config.star.out_channels for info in embeddings)


def _fits(path: Path, config: RunConfig, stage: str) -> bool:
    with torch.device("meta"):
        module = TinyAutoencoder(config.codec) if stage == "codec" else StarTransformer(config.star)
    try:
        with open_checkpoint(path) as checkpoint:
            shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        compare({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, shapes, str(path))
    except CheckpointMismatch as error:
        logger.warning("shipped weights are passed over: %s", error)
        return False
    return True


def _result_name(config: RunConfig, stage: str) -> str:
    return config.name if stage == "distill" else f"{config.name}_{stage.replace('-', '_')}"
