"""Weights from the disk into a module, tensor by tensor, or random ones that say so."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from inspatio_sim.checkpoints.files import Checkpoint, open_checkpoint
from inspatio_sim.checkpoints.tensors import FLOATS, is_finite, shown
from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.blocks.loading import RANDOM_NOTICE, randomly_made
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.identify import looks_like
from inspatio_sim.generators.presets.plan import Entry, plan
from inspatio_sim.generators.presets.registry import Preset
from inspatio_sim.progress import Progress

log = logging.getLogger(__name__)


def load_weights(
    module: nn.Module,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    widen: bool = False,
    progress: Progress | None = None,
) -> None:
    """Fill a module with the weights of a checkpoint; all of them, and no others.

    Tables that the module computes (`keys.COMPUTED`) stay as they are where the file has none of their shape.

    Needs the memory of the weights once, and of the largest tensor once more. Build the module under
    `torch.device("meta")`, where it takes none itself.

    Args:
        module: its parameters and persistent buffers are replaced.
        path: what `open_checkpoint` takes.
        dtype: bfloat16, float16 or float32 to cast to; None keeps each tensor's own.
        device: where the weights go.
        widen: take a text-to-video base with 16 input channels (see `widen_patch_embedding`).
        progress: told the share of bytes read.

    Raises:
        CheckpointMismatch: tensors are missing, extra or of another shape; nothing was loaded.
        InputError: the checkpoint cannot be read, or holds NaN, infinities, or no floats; nothing was loaded.
    """
    if dtype is not None and dtype not in FLOATS.values():
        raise InputError(f"dtype={dtype}: want one of {', '.join(FLOATS)}, or None")
    own = module.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    with open_checkpoint(path) as checkpoint:
        try:
            entries = plan(checkpoint, expected, widen=widen).entries
        except CheckpointMismatch as error:
            raise CheckpointMismatch(f"{error}; by its shapes it is {looks_like(checkpoint)}") from error
        state: dict[str, Tensor] = {}
        infos = checkpoint.tensors
        sizes = {name: infos[entry.source].num_elements for name, entry in entries.items()}
        num_read, num_all = 0, sum(sizes.values())
        for name, entry in entries.items():
            state[name] = read_finite(checkpoint, entry, dtype=dtype, device=device)
            num_read += sizes[name]
            if progress:
                progress("loading weights", num_read / num_all)
    for name in own.keys() - state.keys():
        state[name] = own[name].to(device=device, dtype=dtype)
    module.load_state_dict(state, strict=True, assign=True)
    empty = [name for name, tensor in module.named_buffers() if tensor.is_meta]
    assert not empty, f"buffers that no checkpoint fills were built on the meta device: {', '.join(empty)}"


def read_finite(
    checkpoint: Checkpoint, entry: Entry, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """One tensor, cast and moved.

    Raises:
        InputError: it holds NaN or infinities, or does so once cast.
    """
    original = entry.read(checkpoint)
    tensor = original.to(device=device, dtype=dtype)
    if not is_finite(tensor):
        if is_finite(original):
            raise InputError(
                f"{checkpoint.path}: {shown(entry.source)} has numbers too large for {dtype}: want bfloat16"
            )
        raise InputError(f"{checkpoint.path}: {shown(entry.source)} holds NaN or infinity: damaged weights")
    return tensor


def files_of(preset: Preset, folder: str | Path | None, *, random_weights: bool) -> dict[Role, Path]:
    """The preset's files; none, said loudly, where its weights are to be random.

    Raises:
        InputError: files are missing (names each one and where it is published), or both a folder and random
            weights are asked for.
        CheckpointMismatch: a transformer by that name is another model.
    """
    if random_weights:
        if folder is not None:
            raise InputError(f"weights={str(folder)!r} and random_weights: want one or the other")
        log.warning("%s (preset %s)", RANDOM_NOTICE, preset.name)
        return {}
    try:
        return find_weights(preset, folder)
    except InputError as error:
        raise type(error)(f"{error}; or try the machinery with random weights (random_weights)") from error


def tiny_codec(config: TinyConfig, path: Path | None, dtype: torch.dtype, device: torch.device) -> TinyCodec:
    """The small video codec with its weights; None: seeded random ones."""
    if path is None:
        network = randomly_made(lambda: TinyAutoencoder(config), dtype, device)
    else:
        with torch.device("meta"):
            network = TinyAutoencoder(config)
        load_weights(network, path, dtype=dtype, device=device)
    return TinyCodec(network.eval().requires_grad_(False))
