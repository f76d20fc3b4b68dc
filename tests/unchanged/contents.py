"""Files that the project writes, as values: pictures and videos decoded, so that a difference has a size.

What is only bytes to others (containers, compression levels, dates in headers) is not compared.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from safetensors import safe_open


def contents(folder: Path, name: str = "") -> dict[str, Any]:
    """All files below a folder, by their paths in it; `name` goes before them."""
    values: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found = content(path)
            inner = found if isinstance(found, dict) and path.suffix in _MANY else {"": found}
            label = f"{name}/{path.relative_to(folder)}".lstrip("/")
            values |= {f"{label}/{key}".rstrip("/"): value for key, value in inner.items()}
    return values


def content(path: Path) -> Any:
    """One file: an array, bytes, something JSON-ready, or several of these by name."""
    return _READERS.get(path.suffix, Path.read_bytes)(path)


def read_video(path: Path) -> np.ndarray:
    """Decoded frames. [T, H, W, 3]"""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        arrays = {key: file.get_tensor(key) for key in sorted(file.keys())}  # noqa: SIM118 (no mapping)
        return {**arrays, "metadata": {name: _unpacked(note) for name, note in (file.metadata() or {}).items()}}


def _unpacked(note: str) -> Any:
    """Notes on weights are JSON within texts."""
    try:
        return json.loads(note)
    except ValueError:
        return note


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _read_ply(path: Path) -> dict[str, np.ndarray]:
    import open3d  # takes seconds, and few cases have point clouds

    cloud = open3d.io.read_point_cloud(path)
    return {"points_m": np.asarray(cloud.points), "colors": np.asarray(cloud.colors)}


_READERS = {
    ".mp4": read_video,
    ".png": _read_image,
    ".pgm": _read_image,
    ".json": _read_json,
    ".safetensors": _read_safetensors,
    ".csv": _read_csv,
    ".tum": np.loadtxt,
    ".npy": np.load,
    ".ply": _read_ply,
}
_MANY = (".safetensors", ".ply")
