"""A checkpoint in this package's form: safetensors, names without prefixes, widened, cast, with notes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from inspatio_sim.checkpoints.files import Checkpoint, open_checkpoint
from inspatio_sim.checkpoints.tensors import FLOATS
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.identify import LICENCE_NOTE, PRESET_NOTE, config_notes, identify, looks_like
from inspatio_sim.generators.presets.load import read_finite
from inspatio_sim.generators.presets.plan import Plan, plan, plan_as_is
from inspatio_sim.generators.presets.registry import Preset, StarPreset
from inspatio_sim.progress import Progress


def convert(
    source: str | Path,
    preset: Preset | None,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Write a checkpoint anew; what stood at `out` is replaced, at the end.

    Args:
        source: what `open_checkpoint` takes.
        preset: whose transformer it becomes; None: the same tensors under the same names, whatever model it is.
        out: a name that ends with .safetensors.
        dtype: bfloat16, float16 or float32; None keeps each tensor's own.
        progress: told the share of bytes written.

    Returns:
        The notes in the new file's header.

    Raises:
        CheckpointMismatch: the source is another model.
        InputError: the source cannot be read or holds NaN or infinity, or the new file cannot be written.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"out={out}: want a file name that ends with .safetensors")
    with open_checkpoint(source) as checkpoint:
        chosen = _plan(checkpoint, preset)
        notes = _notes(checkpoint, chosen, preset, dtype)
        tensors = {name: (entry.shape, dtype or FLOATS[entry.dtype]) for name, entry in chosen.entries.items()}
        num_all = sum(torch.Size(shape).numel() for shape, _ in tensors.values())
        num_read = 0

        def read(name: str) -> Tensor:
            nonlocal num_read
            tensor = read_finite(checkpoint, chosen.entries[name], dtype=dtype)
            num_read += tensor.numel()
            if progress:
                progress("converting", num_read / num_all)
            return tensor

        write_safetensors(out, tensors, read, notes)
    return notes


def _plan(checkpoint: Checkpoint, preset: Preset | None) -> Plan:
    if preset is None:
        return plan_as_is(checkpoint)
    try:
        return plan(checkpoint, preset.shapes, widen=isinstance(preset, StarPreset) and preset.is_base)
    except CheckpointMismatch as error:
        message = f"{checkpoint.path}: cannot become {preset.name}: it is {looks_like(checkpoint)}"
        raise CheckpointMismatch(f"{message}; {error}") from error


def _notes(checkpoint: Checkpoint, chosen: Plan, preset: Preset | None, dtype: torch.dtype | None) -> dict[str, str]:
    """The new header: the old one's notes, where the file came from, what was changed."""
    cast = [f"cast to {str(dtype).removeprefix('torch.')}"] if dtype else []
    notes = {
        **checkpoint.metadata,
        "format": "pt",
        "source_file": checkpoint.path.name,
        "changes": "; ".join([*chosen.changes, *cast]) or "none",
    }
    licence = preset.wanted("transformer").licence if preset else identify(checkpoint).licence
    if licence:
        notes[LICENCE_NOTE] = licence
    if preset:
        notes |= {PRESET_NOTE: preset.name, **config_notes(preset.sizes)}
        notes["publication"] = preset.publication
    return notes
