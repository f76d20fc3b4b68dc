"""Clips encoded before training: filmed, seen from the target's cameras, through the codec, on the disk as float16.

    runs/tiny/latents/synthetic/00000000-00000064/   the first 64 clips, as `write_shards` writes them
                                00000064-00000128/   ...

Asked for again, it makes what is missing; asked for more clips, it adds them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.star.generator import identity_of
from inspatio_sim.progress import Progress
from inspatio_sim.text import CachedText, HashedWords, TextEncoder, Umt5
from inspatio_sim.training.data.clip_folder import ClipFolder
from inspatio_sim.training.data.multicam import MultiCamClips
from inspatio_sim.training.data.procedural import HELD_OUT_SEED, ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.re10k import Re10kClips
from inspatio_sim.training.data.sample import ClipDataset, Sample
from inspatio_sim.training.data.shards import ShardDataset, write_shards
from inspatio_sim.training.engine.workers import in_order
from inspatio_sim.training.star.configs import DataConfig, RunConfig
from inspatio_sim.training.star.views import NONE, encode_sample

STYLES: tuple[Style, ...] = ("synthetic", "photo")
_PART = re.compile(r"(\d{8})-(\d{8})")
_FAULTS = 1  # tells the random numbers of faults from those of clips

READERS: dict[str, Callable[[Path, tuple[int, int], int, int], ClipDataset]] = {
    "re10k": Re10kClips,
    "multicam": MultiCamClips,
    "folder": ClipFolder,
}

Encoded = dict[str, NDArray[np.float16]]


def clip_config(data: DataConfig, style: Style, *, num_clips: int, seed: int | None = None) -> ProceduralConfig:
    """The clips of one style; each style has places of its own."""
    return ProceduralConfig(
        seed=data.seed + STYLES.index(style) if seed is None else seed,
        style=style,
        num_frames=data.num_frames,
        size_px=data.size_px,
        fps=data.fps,
        length=num_clips,
        texture_folder=data.texture_folder,
    )


def is_read(data: DataConfig) -> bool:
    """Whether clips come from a folder; such settings are checked where the clips are opened."""
    return data.kind != "made-up" or data.folder is not None


def clips_of(data: DataConfig, style: Style, *, num_clips: int) -> ClipDataset:
    """The clips of one style, made up or read; a folder has one style, of which each of ours takes other parts.

    Raises:
        InputError: the folder cannot be used, or has fewer clips.
    """
    made_up = clip_config(data, style, num_clips=num_clips)
    if not is_read(data):
        return ProceduralClips(made_up)
    if data.kind == "made-up" or data.folder is None:
        want = f"want data.folder=FOLDER with data.kind={', '.join(READERS)}, and with no other"
        raise InputError(f"data.kind={data.kind} data.folder={data.folder}: {want}")
    clips = READERS[data.kind](data.folder, data.size_px, data.num_frames, made_up.seed)
    if len(clips) < num_clips:
        want = f"want data.num_clips={len(clips)} and data.pool_clips={len(STYLES) * len(clips)} at most"
        raise InputError(f"{data.folder}: {len(clips)} clips, {num_clips} asked for: {want}")
    return clips


def held_out_clip(data: DataConfig, style: Style) -> Sample:
    """A made-up clip that is never trained on."""
    return ProceduralClips(clip_config(data, style, num_clips=1, seed=HELD_OUT_SEED))[0]


def held_out_latents(config: RunConfig, style: Style, codec: TinyAutoencoder) -> dict[str, Tensor]:
    """The same, encoded, without faults."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    return encode_sample(held_out_clip(config.data, style), TinyCodec(codec), text_encoder(config), NONE, rng)


def text_encoder(config: RunConfig) -> TextEncoder:
    """Of the registry's preset that the config names; else hashed words."""
    if config.preset is None:
        return HashedWords(text_dim=config.star.text_dim, text_len=config.star.text_len)
    files = find_weights(config.preset)
    if "text_encoder" not in files:
        raise InputError(f"preset {config.preset}: no text encoder found: see inspatio-sim weights list")
    return CachedText(Umt5(files["text_encoder"]))


@dataclass(frozen=True)
class EncodeWork:
    """Films and encodes clips of one style; what it needs is built anew in each process."""

    config: RunConfig
    style: Style
    codec: TinyAutoencoder
    num_clips: int

    def __call__(self) -> Callable[[int], Encoded]:
        data = self.config.data
        clips = clips_of(data, self.style, num_clips=self.num_clips)
        seed = clip_config(data, self.style, num_clips=1).seed
        codec, text = TinyCodec(self.codec), text_encoder(self.config)

        def encode(index: int) -> Encoded:
            rng = np.random.default_rng([seed, index, _FAULTS])
            encoded = encode_sample(clips[index], codec, text, self.config.augment, rng)
            return {name: tensor.half().numpy() for name, tensor in encoded.items()}

        return encode


class EncodedParts:
    """Encoded clips of one style by index, from all the parts on the disk."""

    def __init__(self, parts: Mapping[int, ShardDataset], num_clips: int) -> None:
        """`parts`: by their first clips, rising."""
        self._starts, self._parts, self._num_clips = list(parts), list(parts.values()), num_clips

    def __len__(self) -> int:
        return self._num_clips

    @property
    def num_bytes(self) -> int:
        """About what they would take in memory."""
        return sum(file.stat().st_size for part in self._parts for file in part.folder.glob("*.safetensors"))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        part = bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]


def prepare(
    config: RunConfig,
    style: Style,
    codec: TinyAutoencoder,
    *,
    num_clips: int,
    progress: Progress | None = None,
) -> None:
    """Encode those of the first clips that are not on the disk yet.

    Args:
        config: of the run.
        style: of the clips.
        codec: frozen, on the CPU.
        num_clips: how many there shall be; those beyond stay.
        progress: told the share done.

    Raises:
        InputError: what is there was made with other settings, or cannot be written.
    """
    folder = latents_folder(config, style)
    identity = _identity(config, style, codec)
    missing = [part for part in _parts(folder, num_clips, config.data) if _written(folder, part, identity) is None]
    indices = [index for part in missing for index in part]
    num_there = num_clips - len(indices)
    if indices and is_read(config.data):
        clips_of(config.data, style, num_clips=num_clips)  # says what is wrong before other processes begin

    def counted(encoded: Iterator[Encoded]) -> Iterator[Encoded]:
        for num_made, clip in enumerate(encoded, start=1):
            if progress:
                progress(f"encoding {style} clips", min(1.0, (num_there + num_made) / num_clips))
            yield clip

    with closing(in_order(EncodeWork(config, style, codec, num_clips), indices, config.data.workers)) as encoded:
        clips = counted(encoded)
        for part in missing:
            write_shards(_Next(clips, len(part)), _tensors, folder / _name(part), len(part), identity=identity)


def open_latents(config: RunConfig, style: Style, codec: TinyAutoencoder, *, num_clips: int) -> EncodedParts:
    """The first clips, encoded before.

    Raises:
        InputError: some are missing, or were made with other settings.
    """
    folder, identity = latents_folder(config, style), _identity(config, style, codec)
    parts: dict[int, ShardDataset] = {}
    for part in _parts(folder, num_clips, config.data):
        written = _written(folder, part, identity)
        if written is None:
            raise InputError(f"{folder / _name(part)}: clips are missing: want inspatio-sim train star/prepare first")
        parts[part.start] = written
    return EncodedParts(parts, num_clips)


def latents_folder(config: RunConfig, style: Style) -> Path:
    """Of one style of a run."""
    return config.folder / "latents" / style


class _Next:
    """Clips as they come, asked for in their order."""

    def __init__(self, clips: Iterator[Encoded], num_clips: int) -> None:
        self._clips, self._num_clips = clips, num_clips

    def __len__(self) -> int:
        return self._num_clips

    def __getitem__(self, index: int) -> Encoded:
        return next(self._clips)


def _tensors(encoded: Encoded) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in encoded.items()}


def _identity(config: RunConfig, style: Style, codec: TinyAutoencoder) -> str:
    """All that latents depend on."""
    clips = asdict(clip_config(config.data, style, num_clips=1))
    shown = {name: str(value) for name, value in clips.items() if name not in ("length", "num_threads")}
    if is_read(config.data):
        shown |= {"kind": config.data.kind, "folder": str(config.data.folder)}
    weights = identity_of(*(weight for name, weight in codec.state_dict().items() if "decoder" not in name))
    return f"clips {shown}, faults {asdict(config.augment)}, codec {weights}, text {text_encoder(config).identity}"


def _parts(folder: Path, num_clips: int, data: DataConfig) -> list[range]:
    """Those on the disk one behind the other from the first clip, then those that are to be made."""
    names = [_PART.fullmatch(path.name) for path in folder.glob("*-*")]
    stops = {int(match[1]): int(match[2]) for match in names if match and match[1] < match[2]}
    parts, start = [], 0
    while start < num_clips:
        parts.append(range(start, stops.get(start, min(start + data.clips_per_shard, num_clips))))
        start = parts[-1].stop
    return parts


def _name(part: range) -> str:
    return f"{part.start:08d}-{part.stop:08d}"


def _written(folder: Path, part: range, identity: str) -> ShardDataset | None:
    """A part that is whole; None where it is to be written, or written again."""
    try:
        written = ShardDataset(folder / _name(part))
    except InputError:  # not there, or cut off
        return None
    if written.identity != identity:
        raise InputError(
            f"{folder}: encoded with another codec or other data and faults: want another --out, or remove that folder"
        )
    return written
