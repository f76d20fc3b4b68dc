"""A world on disk: a folder with the Reference, the state as safetensors, and a readable json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import save_arrays, writing_to
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.generators import name_of
from inspatio_sim.mapping import MapConfig
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.loop import Setting
from inspatio_sim.world.snapshot import WorldSnapshot

FORMAT = "inspatio-sim world 1"
META, STATE, REFERENCE = "world.json", "state.safetensors", "reference"
PARTS = ("path", "map", "generator")  # dictionaries of arrays in a snapshot


@dataclass(frozen=True, kw_only=True)
class SavedWorld:
    """What a folder holds."""

    reference: Reference
    generator: str
    generator_options: dict[str, Any]
    prompt: str
    config: WorldConfig
    snapshot: WorldSnapshot


def write_world(setting: Setting, snapshot: WorldSnapshot, folder: Path) -> None:
    """Write the folder whole or not at all; an earlier world there is replaced."""
    arrays = {f"{part}.{name}": array for part in PARTS for name, array in getattr(snapshot, part).items()}
    meta = {
        "format": FORMAT,
        "generator": name_of(setting.generator),
        "generator_options": setting.generator.options,
        "prompt": setting.prompt,
        "seed": snapshot.seed,
        "num_frames": snapshot.num_frames,
        "mapped_frame_idx": snapshot.mapped_frame_idx,
        "clock": snapshot.clock,
        "config": asdict(setting.config),
    }
    with staged_folder(folder, (META, STATE, REFERENCE)) as staging, writing_to(folder):
        setting.reference.save(staging / REFERENCE)
        save_arrays(arrays, staging / STATE)
        (staging / META).write_text(json.dumps(meta, indent=2) + "\n")


def read_world(folder: Path) -> SavedWorld:
    """Read and check a folder written by `write_world`; nothing in it is ever executed."""
    meta = _read_meta(folder / META)
    try:
        config = dict(meta["config"])
        config["map"] = MapConfig(**config["map"])
        parts: dict[str, Any] = {part: {} for part in PARTS}
        for key, array in _read_arrays(folder / STATE).items():
            part, _, name = key.partition(".")
            parts[part][name] = array
        mapped_frame_idx = meta["mapped_frame_idx"]
        snapshot = WorldSnapshot(
            seed=int(meta["seed"]),
            num_frames=int(meta["num_frames"]),
            mapped_frame_idx=None if mapped_frame_idx is None else int(mapped_frame_idx),
            clock=dict(meta["clock"]),
            **parts,
        )
        return SavedWorld(
            reference=Reference.load(folder / REFERENCE),
            generator=str(meta["generator"]),
            generator_options=dict(meta["generator_options"]),
            prompt=meta["prompt"],
            config=WorldConfig(**config),
            snapshot=snapshot,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / META}: damaged ({error}): want a folder written by World.save") from error


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): want a folder written by World.save") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}): want a folder written by World.save") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{path}: format is not {FORMAT!r}: want a folder written by this version's World.save")
    return meta


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error})") from error
