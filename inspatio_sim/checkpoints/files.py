"""Checkpoints on the disk: one .safetensors, a set of shards, one .pth; listed without reading the data.

| path                                   | what it stands for                                         |
|----------------------------------------|------------------------------------------------------------|
| x.safetensors                          | that file                                                  |
| x.safetensors.index.json               | the shards it lists, all in its own folder                 |
| x-00001-of-00003.safetensors           | the whole set of three, with or without an index           |
| x.pth, x.pt                            | that file; nothing but tensors is unpickled from it        |
| a folder                               | the only one of the above in it                            |

What a file is called and what it is must agree: a pickle named .safetensors is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from inspatio_sim.checkpoints.safetensors_file import SafetensorsFile
from inspatio_sim.checkpoints.tensors import TensorInfo, shown
from inspatio_sim.checkpoints.torch_file import TorchFile
from inspatio_sim.errors import InputError

Format = Literal["safetensors", "sharded safetensors", "torch"]

SHIPPED = Path(__file__).resolve().parent.parent / "weights"  # that come with this package

INDEX = ".safetensors.index.json"
TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", INDEX, *TORCH_SUFFIXES)

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of one model, wherever they lie; each is read when asked for."""

    path: Path  # as it was named
    format: Format
    parts: tuple[SafetensorsFile | TorchFile, ...]  # one a file

    def __post_init__(self) -> None:
        names = [name for part in self.parts for name in part.tensors]
        if not names:
            raise InputError(f"{self.path}: holds no tensors")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{self.path}: {shown(twice)} is in more than one shard")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(part.path for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Of the files together."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every tensor's name, shape and dtype, in the files' order."""
        return {name: info for part in self.parts for name, info in part.tensors.items()}

    @property
    def metadata(self) -> dict[str, str]:
        """Notes in the header of a safetensors file; of shards, the first one's."""
        return self.parts[0].metadata

    def read(self, name: str) -> Tensor:
        """One tensor in its own dtype, on the CPU, in memory of its own."""
        part = next(part for part in self.parts if name in part.tensors)
        return part.read(name)

    def close(self) -> None:
        """Let go of the files."""
        for part in self.parts:
            part.close()


@contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Checkpoint]:
    """List the tensors of a checkpoint; see the table above for what `path` may be.

    Raises:
        InputError: there is none, it is damaged, incomplete, ambiguous, or not what its name says.
    """
    checkpoint = _open(Path(path))
    try:
        yield checkpoint
    finally:
        checkpoint.close()


def checkpoint_paths(folder: Path) -> list[Path]:
    """Everything in a folder that can be opened, by name; a set of shards once."""
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.name.endswith(SUFFIXES) and entry.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
    indexed = {file.name.removesuffix(INDEX) for file in files if file.name.endswith(INDEX)}
    paths, stems = [], set()
    for file in files:
        shard = _SHARD.fullmatch(file.name)
        if shard and (shard["stem"] in indexed or shard["stem"] in stems):
            continue
        if shard:
            stems.add(shard["stem"])
        paths.append(file)
    return paths


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        return _open(_only_one_in(path))
    if not path.is_file():
        raise InputError(f"{path}: no such file: want a .safetensors, its index, a .pth, or a folder with one of them")
    if path.name.endswith(INDEX):
        return _open_index(path)
    shard = _SHARD.fullmatch(path.name)
    if shard:
        index = path.with_name(f"{shard['stem']}{INDEX}")
        return _open_index(index) if index.is_file() else _open_set(path, shard["stem"], int(shard["count"]))
    if path.suffix == ".safetensors":
        return Checkpoint(path=path, format="safetensors", parts=(_open_safetensors(path),))
    if path.suffix in TORCH_SUFFIXES:
        _check_content(path, wanted="torch")
        return Checkpoint(path=path, format="torch", parts=(TorchFile(path),))
    raise InputError(f"{path}: want a file called {', '.join(f'*{suffix}' for suffix in SUFFIXES)}")


def _only_one_in(folder: Path) -> Path:
    paths = checkpoint_paths(folder)
    if len(paths) == 1:
        return paths[0]
    names = ", ".join(path.name for path in paths[:3])
    found = f"holds {len(paths)} checkpoints ({names}{', ...' if len(paths) > 3 else ''})" if paths else "holds none"
    raise InputError(f"{folder}: {found}: name the file")


def _open_safetensors(path: Path) -> SafetensorsFile:
    _check_content(path, wanted="safetensors")
    return SafetensorsFile(path)


def _open_set(path: Path, stem: str, count: int) -> Checkpoint:
    """Shards without an index: their names say how many there are."""
    files = [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.safetensors") for number in range(1, count + 1)]
    return _open_shards(path, files)


def _open_shards(path: Path, files: list[Path]) -> Checkpoint:
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{path}: {len(missing)} of {len(files)} shards are missing: {', '.join(missing[:3])}{more}")
    parts = tuple(_open_safetensors(file) for file in files)
    return Checkpoint(path=path, format="sharded safetensors", parts=parts)


def _open_index(path: Path) -> Checkpoint:
    """Shards that an index lists: each must be there and hold what the index says, and nothing else."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise InputError(f"{path}: no weight_map in it that gives each tensor a file")
    names = sorted(set(weight_map.values()))
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise InputError(f"{path}: shard {shown(name)}: want a .safetensors beside the index")
    checkpoint = _open_shards(path, [path.with_name(name) for name in names])
    held = {name: part.path.name for part in checkpoint.parts for name in part.tensors}
    if held != weight_map:
        wrong = next(name for name in {**weight_map, **held} if held.get(name) != weight_map.get(name))
        where = f"in {held[wrong]}" if wrong in held else "in no shard"
        raise InputError(f"{path}: {shown(wrong)} is {where}, not where the index has it: download the set again")
    return checkpoint


def _check_content(path: Path, wanted: Literal["safetensors", "torch"]) -> None:
    """Compare the first bytes with what the name promises."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{path}: is empty: download it again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: only the Git LFS pointer to the weights: run `git lfs pull` in that folder")
    is_safetensors = start[8:9] == b"{"  # after the header's length
    if wanted == "safetensors" and not is_safetensors and start.startswith((b"PK", b"\x80")):
        raise InputError(f"{path}: named .safetensors, but is a torch file or pickle: not opened as what it is not")
    if wanted == "torch" and is_safetensors:
        raise InputError(f"{path}: named {path.suffix}, but is a safetensors file: rename it to .safetensors")
