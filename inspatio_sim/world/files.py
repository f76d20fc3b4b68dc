"""A world on disk: a folder with the Reference, the state as safetensors, and a json a person can read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import save_arrays, writing_to
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.generators import generator_by_name, name_of
from inspatio_sim.mapping import MapConfig
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.world import World, WorldConfig, WorldSnapshot

FORMAT = "inspatio-sim world 1"
META, STATE, REFERENCE = "world.json", "state.safetensors", "reference"
PARTS = ("path", "map", "generator")  # dictionaries of arrays in a snapshot


def save_world(world: World, folder: Path) -> None:
    """Write the folder whole or not at all; an earlier world there is replaced."""
    snapshot = world.snapshot()
    arrays = {f"{part}.{name}": array for part in PARTS for name, array in getattr(snapshot, part).items()}
    meta = {
        "format": FORMAT,
        "generator": name_of(world.generator),
        "generator_options": world.generator.options,
        "prompt": world.prompt,
        "seed": snapshot.seed,
        "num_frames": snapshot.num_frames,
        "mapped_frame_idx": snapshot.mapped_frame_idx,
        "clock": snapshot.clock,
        "config": asdict(world.config),
    }
    with staged_folder(folder, (META, STATE, REFERENCE)) as staging, writing_to(folder):
        world.reference.save(staging / REFERENCE)
        save_arrays(arrays, staging / STATE)
        (staging / META).write_text(json.dumps(meta, indent=2) + "\n")


def load_world(folder: Path) -> World:
    """Read and check a folder written by `save_world`; nothing in it is ever executed."""
    meta = _read_meta(folder / META)
    try:
        config = dict(meta["config"])
        config["map"] = MapConfig(**config["map"])
        world = World(
            Reference.load(folder / REFERENCE),
            generator=generator_by_name(meta["generator"], **meta["generator_options"]),
            seed=int(meta["seed"]),
            prompt=meta.get("prompt", ""),  # worlds saved before there were prompts
            config=WorldConfig(**config),
        )
        arrays = _read_arrays(folder / STATE)
        parts = {part: {} for part in PARTS}
        for key, array in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = array
        world.restore(
            WorldSnapshot(
                seed=world.seed,
                num_frames=int(meta["num_frames"]),
                mapped_frame_idx=_index(meta.get("mapped_frame_idx")),  # not in worlds saved by earlier versions
                clock=meta["clock"],
                **parts,
            )
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / META}: damaged ({error}): want a folder written by World.save") from error
    return world


def _index(value: Any) -> int | None:
    return None if value is None else int(value)


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): want a folder written by World.save") from error
    except ValueError as error:
        raise InputError(f"{path}: is no json ({error}): want a folder written by World.save") from error
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
