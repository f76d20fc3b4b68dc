"""Names of tensors: what wrappers put before them, and how those of a file differ from a model's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inspatio_sim.checkpoints.tensors import Shape, shape_text, shown
from inspatio_sim.errors import CheckpointMismatch

PREFIXES = ("model.", "module.", "generator.", "generator_ema.", "transformer.", "diffusion_model.", "_orig_mod.")
"""Left by wrappers: the published InSpatio-World (`model.`), data-parallel and compiled modules, training code."""

COMPUTED = frozenset({"pos_embed"})
"""Tables that a network makes itself, for the size that it was trained on: a file may lack them, or hold others."""

_NUM_NAMED = 3  # tensors that a message names
_BLOCK = re.compile(r"blocks\.(\d{1,6})\.")


def strip_prefixes(names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Take off every prefix of `PREFIXES` that all names share.

    Returns:
        What was taken off, such as "module.model.", and {name without it: name in the file}.
    """
    originals = list(names)
    taken = ""
    while originals:
        prefix = next((p for p in PREFIXES if all(name.startswith(taken + p) for name in originals)), None)
        if prefix is None:
            break
        taken += prefix
    return taken, {name.removeprefix(taken): name for name in originals}


def num_blocks(names: Iterable[str]) -> int:
    """Blocks of a transformer, told from its tensors."""
    return max((int(match[1]) + 1 for match in map(_BLOCK.match, names) if match), default=0)


def compare(expected: Mapping[str, Shape], found: Mapping[str, Shape], source: str) -> None:
    """Refuse tensors that are not exactly those of a model.

    Args:
        expected: the model's tensors.
        found: the file's tensors.
        source: what the message calls the file.

    Raises:
        CheckpointMismatch: tensors are missing, extra or misshapen: how many, and the first few, in one line.
    """
    missing = [shown(name) for name in expected if name not in found]
    extra = [shown(name) for name in found if name not in expected]
    misshapen = [
        f"{shown(name)} is {shape_text(found[name])}, want {shape_text(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    parts = [
        f"{len(lines)} {what} ({'; '.join(lines[:_NUM_NAMED])}{'; ...' if len(lines) > _NUM_NAMED else ''})"
        for what, lines in (("missing", missing), ("extra", extra), ("of another shape", misshapen))
        if lines
    ]
    if parts:
        raise CheckpointMismatch(f"{source}: not the tensors of this model: {', '.join(parts)}")
