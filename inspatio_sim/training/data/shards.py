"""Latents computed once, before training: safetensors files of a few samples each, and an index.

    my_latents/
      shard-00000.safetensors   tensors 00000000/target, 00000000/text, ...: sample, then the name `encode` gave
      shard-00001.safetensors   ...
      index.json                what the shards hold, their sizes and hashes

The index carries a fingerprint of what the samples depend on (the caller's `identity`), their number and the
samples per shard; every shard carries it too, so that shards of two runs are never mixed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from inspatio_sim.checkpoints.safetensors_file import SafetensorsFile
from inspatio_sim.checkpoints.tensors import FLOATS, is_finite
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.folders import checked_index, read_json

logger = logging.getLogger(__name__)

Item = TypeVar("Item", covariant=True)


class Items(Protocol[Item]):
    """What is encoded, by index, such as a `ClipDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


Encode = Callable[[Item], Mapping[str, Tensor]]
"""Turns a sample into named tensors (bfloat16, float16 or float32), such as latents and a text embedding."""

INDEX_NAME = "index.json"
_FORMAT = "inspatio-sim shards 1"
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """What the index says of one file."""

    file: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Index:
    identity: str
    num_samples: int
    samples_per_shard: int
    shards: tuple[_Shard, ...] = ()  # those that are written, from the first

    @property
    def num_shards(self) -> int:
        """When all is written."""
        return -(-self.num_samples // self.samples_per_shard)

    @property
    def fingerprint(self) -> str:
        about = [_FORMAT, self.identity, self.num_samples, self.samples_per_shard]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def samples(self, shard_idx: int) -> range:
        """The samples of one shard."""
        start = shard_idx * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, self.num_samples))


class ShardDataset:
    """Samples of `write_shards` by index; each is read from the disk when asked for, nothing is held open."""

    def __init__(self, folder: str | Path, identity: str | None = None) -> None:
        """Read the index and look at the files' sizes.

        Args:
            folder: what `write_shards` wrote.
            identity: refuse shards made from anything else; None takes any.

        Raises:
            InputError: the shards are missing, unfinished, damaged, or of something else.
        """
        self.folder = Path(folder)
        index = _read_index(self.folder)
        if index is None:
            raise InputError(f"{self.folder}: no {INDEX_NAME}: want a folder of shards")
        if identity is not None and index.identity != identity:
            raise InputError(f"{self.folder}: shards of {index.identity!r}: want {identity!r}, write them anew")
        if len(index.shards) < index.num_shards:
            come = f"{len(index.shards)} of {index.num_shards} shards are written"
            raise InputError(f"{self.folder}: {come}: want all, write them again and it goes on from there")
        for shard in index.shards:
            if _size(self.folder / shard.file) != shard.num_bytes:
                raise InputError(f"{self.folder / shard.file}: missing or cut off: write the shards again to remake it")
        self._index = index

    @property
    def identity(self) -> str:
        """What the samples were made from."""
        return self._index.identity

    def __len__(self) -> int:
        return self._index.num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = checked_index(index, len(self))
        path = self.folder / _shard_name(index // self._index.samples_per_shard)
        file = SafetensorsFile(path)
        if file.metadata.get("fingerprint") != self._index.fingerprint:
            raise InputError(f"{path}: not of this index: want the shards of one run, write them again")
        prefix = f"{index:08d}/"
        sample = {name.removeprefix(prefix): file.read(name) for name in file.tensors if name.startswith(prefix)}
        if not sample:
            raise InputError(f"{path}: holds no sample {index}: write the shards again to remake it")
        return dict(sorted(sample.items()))


def write_shards(
    dataset: Items[Item],
    encode: Encode[Item],
    folder: str | Path,
    samples_per_shard: int,
    progress: Progress | None = None,
    *,
    identity: str,
) -> None:
    """Encode every sample of a dataset into shards; after an interruption, go on where it stopped.

    Shards that are whole (their hash is the index's) are kept, others are made again. The same samples give the
    same bytes.

    Args:
        dataset: the samples.
        encode: run once for each sample.
        folder: new, empty, or that of an earlier run with the same arguments.
        samples_per_shard: at least 1; so many encoded samples are held in memory.
        progress: told the share of samples done.
        identity: what the tensors depend on, in words: data, size, seed, codec, text encoder. Shards of another
            identity are not touched but refused.

    Raises:
        InputError: an argument is wrong, the folder holds something else or cannot be written, or `encode` gave
            something that is no finite float tensor.
    """
    folder = Path(folder)
    if samples_per_shard < 1:
        raise InputError(f"samples_per_shard={samples_per_shard}: want at least 1")
    if not len(dataset):
        raise InputError("the dataset is empty: want at least one sample")
    if folder.is_file():
        raise InputError(f"{folder}: is a file: want a folder")
    index = _Index(identity=identity, num_samples=len(dataset), samples_per_shard=samples_per_shard)
    earlier = _read_index(folder)
    if earlier is not None:
        if earlier.fingerprint != index.fingerprint:
            raise InputError(f"{folder}: holds {_shown(earlier)}; asked for {_shown(index)}: want a new folder")
        index = earlier

    for shard_idx in range(index.num_shards):
        if shard_idx >= len(index.shards) or not _is_whole(folder / _shard_name(shard_idx), index.shards[shard_idx]):
            shard = _write_shard(dataset, encode, folder, index, shard_idx)
            shards = (*index.shards[:shard_idx], shard, *index.shards[shard_idx + 1 :])
            index = replace(index, shards=shards)
            _write_index(folder, index)
        if progress:
            progress("encoding", index.samples(shard_idx).stop / index.num_samples)


def _write_shard(dataset: Items[Item], encode: Encode[Item], folder: Path, index: _Index, shard_idx: int) -> _Shard:
    tensors: dict[str, Tensor] = {}
    for sample_idx in index.samples(shard_idx):
        encoded = encode(dataset[sample_idx])
        if not encoded:
            raise InputError(f"encode gave no tensors for sample {sample_idx}: want at least one")
        for name, tensor in encoded.items():
            if not name or tensor.dtype not in FLOATS.values():
                raise InputError(f"encode gave {name!r} of {tensor.dtype}: want a name and {', '.join(FLOATS)}")
            if not is_finite(tensor):
                raise InputError(f"encode gave NaN or inf in {name} of sample {sample_idx}: want finite numbers")
            tensors[f"{sample_idx:08d}/{name}"] = tensor.detach().cpu()
    path = folder / _shard_name(shard_idx)
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_safetensors(path, shapes, tensors.__getitem__, {"fingerprint": index.fingerprint})
    return _Shard(file=path.name, num_bytes=path.stat().st_size, sha256=_sha256(path))


def _is_whole(path: Path, shard: _Shard) -> bool:
    if _size(path) == shard.num_bytes and _sha256(path) == shard.sha256:
        return True
    logger.warning("%s: missing or damaged: making it again", path)
    return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _shard_name(shard_idx: int) -> str:
    return f"shard-{shard_idx:05d}.safetensors"


def _shown(index: _Index) -> str:
    return f"{index.num_samples} samples of {index.identity!r}, {index.samples_per_shard} a shard"


# The index


def _write_index(folder: Path, index: _Index) -> None:
    values = {"format": _FORMAT, "fingerprint": index.fingerprint, **asdict(index)}
    path = folder / INDEX_NAME
    with replacing(path) as temporary, writing_to(path):
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _read_index(folder: Path) -> _Index | None:
    """The index of a folder, None if it has none; one that contradicts itself is refused."""
    path = folder / INDEX_NAME
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise InputError(f"{path}: not an index of shards in the format {_FORMAT!r}")
    index = _Index(
        identity=_value(values, "identity", str, path),
        num_samples=_value(values, "num_samples", int, path),
        samples_per_shard=_value(values, "samples_per_shard", int, path),
        shards=tuple(_shard(entry, n, path) for n, entry in enumerate(_value(values, "shards", list, path))),
    )
    if min(index.num_samples, index.samples_per_shard) < 1 or len(index.shards) > index.num_shards:
        raise InputError(f"{path}: {len(index.shards)} shards of {_shown(index)}: the numbers do not fit")
    if values.get("fingerprint") != index.fingerprint:
        raise InputError(f"{path}: its fingerprint is not that of its contents: it was changed; write the shards anew")
    return index


def _shard(entry: Any, shard_idx: int, path: Path) -> _Shard:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: shard {shard_idx} is no object")
    shard = _Shard(
        file=_value(entry, "file", str, path),
        num_bytes=_value(entry, "num_bytes", int, path),
        sha256=_value(entry, "sha256", str, path),
    )
    if shard.file != _shard_name(shard_idx):  # also no way out of the folder
        raise InputError(f"{path}: shard {shard_idx} is {shard.file[:80]!r}: want {_shard_name(shard_idx)}")
    return shard


def _value(values: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = values.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {key} is missing or no {kind.__name__}")
    return value
