"""Checkpoints of a training run: a folder a step, safetensors and JSON, complete under its name or not there.

    checkpoints/step_00000400/
      student.safetensors        weights of a module, whole, by their names in its state dict
      student.ema.safetensors    their moving average
      adam.optimiser.safetensors what an optimiser remembers: "<module>.<weight>/<key>"
      run.json                   step, counters, random states, the optimisers' groups

Nothing in it is pickled. Weights are whole whatever the number of ranks that saved them, so any number can go on.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.training.engine.distributed import Ranks, gathered, split_like

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
_PREFIX = "step_"

Tensors = dict[str, Tensor]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensors], numbers: Mapping[str, Any], *, keep: int
) -> Path:
    """Write one checkpoint, then remove the oldest ones.

    Args:
        folder: of the run's checkpoints.
        step: steps done.
        tensors: file name without suffix -> name -> tensor on the CPU; no two share memory.
        numbers: anything JSON can hold.
        keep: how many checkpoints stay, this one included.

    Raises:
        InputError: it cannot be written, such as on a full disk; the older ones are all still there.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    with replacing(target) as temporary, writing_to(target):
        temporary.mkdir()
        for stem, named in tensors.items():
            try:
                save_file(named, temporary / f"{stem}.safetensors")
            except SafetensorError as error:
                raise InputError(f"cannot write {stem}.safetensors to folder {target}: {error}") from error
        (temporary / RUN_FILE).write_text(json.dumps({"step": step, **numbers}, indent=1))
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run had begun to write."""
    for path in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read; None without any. Damaged ones are passed over with a warning."""
    for path in reversed(_checkpoints(folder)):
        try:
            load_numbers(path)
            for file in path.glob("*.safetensors"):
                with safe_open(file, framework="pt"):  # checks that all the bytes of its tensors are there
                    pass
        except (InputError, SafetensorError, OSError) as error:
            logger.warning("%s is passed over: %s", path, error)
        else:
            return path
    return None


def load_numbers(path: Path) -> dict[str, Any]:
    """Everything of a checkpoint that is no tensor."""
    try:
        numbers = json.loads((path / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path / RUN_FILE}: cannot be read: {error}") from error
    if not isinstance(numbers, dict) or not isinstance(numbers.get("step"), int):
        raise InputError(f"{path / RUN_FILE}: want a JSON object with a step")
    return numbers


def load_tensors(path: Path, stem: str, expected: Mapping[str, Tensor] | None = None) -> Tensors:
    """The tensors of one file of a checkpoint.

    Args:
        path: of the checkpoint.
        stem: file name without suffix.
        expected: names and shapes that it must have; None takes any.

    Raises:
        CheckpointMismatch: other names or shapes than expected.
        InputError: the file cannot be read.
    """
    file = path / f"{stem}.safetensors"
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if expected is not None:
        if odd := sorted(tensors.keys() ^ expected.keys()):
            raise CheckpointMismatch(
                f"{file}: {len(odd)} weights are missing or extra, such as {odd[0]}: another model?"
            )
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                came = f"{name} is {list(tensor.shape)}, want {list(expected[name].shape)}"
                raise CheckpointMismatch(f"{file}: {came}: train with the settings that made it")
    return tensors


def optimiser_state(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], ranks: Ranks
) -> tuple[Tensors, dict[str, Any]]:
    """What an optimiser remembers, as whole tensors on rank 0's CPU and as plain numbers; every rank has to ask.

    Args:
        optimiser: after any number of updates.
        names: id of a parameter -> its name.
        ranks: of the run.
    """
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    groups = []
    for group in optimiser.param_groups:
        groups.append({key: value for key, value in group.items() if key != "params"})
        groups[-1]["params"] = [names[id(parameter)] for parameter in group["params"]]
        for parameter in group["params"]:
            for key, value in optimiser.state.get(parameter, {}).items():
                name = f"{names[id(parameter)]}/{key}"
                if isinstance(value, Tensor):
                    tensors[name] = gathered(value, ranks)
                else:
                    numbers[name] = value
    return tensors, {"groups": groups, "state": numbers}


def load_optimiser_state(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], tensors: Tensors, numbers: Mapping[str, Any]
) -> None:
    """Take over what `optimiser_state` gave, of this or another number of ranks.

    Raises:
        CheckpointMismatch: it trained other weights, or trained them in other groups.
    """
    ours = [[names[id(parameter)] for parameter in group["params"]] for group in optimiser.param_groups]
    if ours != [group["params"] for group in numbers["groups"]]:
        raise CheckpointMismatch(
            "the checkpoint's optimiser trained other weights: train with the settings that made it"
        )
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    order = {names[id(parameter)]: index for index, parameter in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {}
    for full_name, value in [*tensors.items(), *numbers["state"].items()]:
        name, key = full_name.rsplit("/", 1)
        if isinstance(value, Tensor) and value.shape == parameters[order[name]].shape:
            value = split_like(value, parameters[order[name]])
        state.setdefault(order[name], {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    for group, saved in zip(groups, numbers["groups"], strict=True):
        group.update({key: _as_before(value) for key, value in saved.items() if key != "params"})
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the global random generators of Python, NumPy and PyTorch, as JSON can hold them."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (libraries may draw from it)
    version, numbers, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": [version, list(numbers), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes().hex()
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on with the random numbers where `random_state` was asked."""
    setters: dict[str, Callable[[Tensor], None]] = {"torch": torch.set_rng_state}
    if device.type == "cuda":
        setters["cuda"] = lambda tensor: torch.cuda.set_rng_state(tensor, device)
    for name, setter in setters.items():
        if name in state:  # a run that began on the CPU has none for CUDA
            setter(torch.frombuffer(bytearray.fromhex(state[name]), dtype=torch.uint8))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _as_before(value: Any) -> Any:
    """JSON has no tuples; an optimiser's pairs (betas) were some."""
    return tuple(value) if isinstance(value, list) else value
