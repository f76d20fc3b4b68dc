"""A transformer of golden size, as random tensors and as a module, for the tests of this folder."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import StarConfig

SMALL = StarConfig(dim=96, ffn_dim=192, num_heads=4, num_layers=2, text_dim=64, text_len=8, freq_dim=32)
SMALL_BASE = replace(SMALL, in_channels=16)


def random_tensors(config: StarConfig = SMALL, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a transformer, by Wan's names."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in expected_shapes(config).items()}


class Bare(nn.Module):
    """A module with these parameters and nothing else."""

    def __init__(self, shapes: dict[str, Shape]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            module: nn.Module = self
            *path, last = name.split(".")
            for step in path:
                if not hasattr(module, step):
                    module.add_module(step, nn.Module())
                module = getattr(module, step)
            module.register_parameter(last, nn.Parameter(torch.empty(shape)))


def meta_module(config: StarConfig = SMALL) -> Bare:
    """A transformer's parameters without memory."""
    with torch.device("meta"):
        return Bare(expected_shapes(config))


def write(tensors: dict[str, Tensor], folder: Path, form: str) -> Path:
    """Save tensors in one of the forms that can be opened; returns what to open."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        save_file(tensors, folder / "model.safetensors")
        return folder / "model.safetensors"
    if form in ("pth", "pt"):
        torch.save(tensors, folder / f"model.{form}")
        return folder / f"model.{form}"
    names = sorted(tensors)
    parts = [names[0::3], names[1::3], names[2::3]]
    files = [folder / f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    for part, file in zip(parts, files, strict=True):
        save_file({name: tensors[name] for name in part}, file)
    if form == "shards":
        return folder
    assert form == "index"
    weight_map = {name: file.name for part, file in zip(parts, files, strict=True) for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def write_hollow(path: Path, shapes: dict[str, Shape], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file of any size that takes no room: true names and shapes, and a hole for the numbers."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return path
