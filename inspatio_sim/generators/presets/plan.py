"""How the tensors of a file become those of a model: names, then the few shapes that change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.checkpoints.files import Checkpoint
from inspatio_sim.checkpoints.tensors import Shape, check_floats, shape_text, shapes_of
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.keys import COMPUTED, compare, strip_prefixes
from inspatio_sim.generators.presets.star_config import LATENT_CHANNELS
from inspatio_sim.generators.presets.wan_names import from_diffusers, is_diffusers

_PATCH_EMBEDDING = "patch_embedding.weight"
_TIME_GROWTH = re.compile(r"decoder\.\d+\.conv\.weight")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one tensor of a model comes from."""

    source: str  # its name in the file
    dtype: str  # in the file
    shape: Shape  # as the model wants it
    change: Callable[[Tensor], Tensor] | None = None

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """The tensor as the model wants it, in the file's dtype."""
        tensor = checkpoint.read(self.source)
        return self.change(tensor) if self.change else tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All tensors of a model, in the model's order; without tables that it computes, where the file has others."""

    entries: dict[str, Entry]
    changes: tuple[str, ...]  # what differs from the file, in words


def canonical_names(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Wan's names without prefixes.

    Returns:
        {name: name in the file}, and what was changed, in words.
    """
    prefix, sources = strip_prefixes(names)
    changes = [f"prefix {prefix} taken off"] if prefix else []
    renamed = {from_diffusers(name): source for name, source in sources.items()}
    if is_diffusers(sources) and len(renamed) == len(sources):  # else one would hide another
        sources = renamed
        changes.append("names of diffusers turned into Wan's")
    return sources, tuple(changes)


def plan(checkpoint: Checkpoint, expected: Mapping[str, Shape], *, widen: bool = False) -> Plan:
    """Find every tensor of a model in a checkpoint.

    Args:
        checkpoint: what is to be loaded; its names are taken as they are if they are the model's,
            otherwise as `canonical_names` has them.
        expected: the model's names and shapes.
        widen: take a text-to-video base with 16 input channels for a model with more.

    Raises:
        CheckpointMismatch: tensors are missing, extra or of another shape.
        InputError: a tensor is no bf16, fp16 or fp32.
    """
    infos = checkpoint.tensors
    check_floats(infos, str(checkpoint.path))
    sources, changes = {name: name for name in infos}, ()
    if sources.keys() != expected.keys():
        sources, changes = canonical_names(infos)
    shapes = {name: infos[source].shape for name, source in sources.items()}
    for name in COMPUTED & (expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            expected = {other: shape for other, shape in expected.items() if other != name}
            if name in shapes:
                del shapes[name]
                changes = (*changes, f"{name} left out: it is computed")
    adapted = {name: _adaptation(name, shapes[name], want, widen) for name, want in expected.items() if name in shapes}
    adapted = {name: change for name, change in adapted.items() if change is not None}
    compare(expected, {**shapes, **{name: expected[name] for name in adapted}}, str(checkpoint.path))
    entries = {
        name: Entry(source=sources[name], dtype=infos[sources[name]].dtype, shape=shape, change=adapted.get(name))
        for name, shape in expected.items()
    }
    resized = [f"{name}: {shape_text(shapes[name])} -> {shape_text(expected[name])}" for name in adapted]
    return Plan(entries=entries, changes=(*changes, *resized))


def plan_as_is(checkpoint: Checkpoint) -> Plan:
    """Every tensor under its own name."""
    infos = checkpoint.tensors
    check_floats(infos, str(checkpoint.path))
    entries = {name: Entry(source=name, dtype=info.dtype, shape=info.shape) for name, info in infos.items()}
    return Plan(entries=entries, changes=())


def shapes_by_canonical_name(checkpoint: Checkpoint) -> dict[str, Shape]:
    """The shapes of a checkpoint, by Wan's names without prefixes."""
    shapes = shapes_of(checkpoint.tensors)
    return {name: shapes[source] for name, source in canonical_names(shapes)[0].items()}


def widen_patch_embedding(weight: Tensor, in_channels: int) -> Tensor:
    """Give the patch embedding of a text-to-video base more input channels.

    The base's channels come first, the new ones (mask, render) are zero: whatever they are fed, the network
    computes what the base did, until it is trained. Channel order: inspatio/inspatio-world, wan_wrapper.py.

    Args:
        weight: [dim, 16, 1, 2, 2]
        in_channels: of the result, 16 or more.

    Returns:
        [dim, in_channels, 1, 2, 2]
    """
    if weight.ndim != 5 or weight.shape[1] != LATENT_CHANNELS or in_channels < LATENT_CHANNELS:
        raise InputError(
            f"patch embedding {shape_text(tuple(weight.shape))} to {in_channels} channels: "
            f"want a text-to-video base's, with {LATENT_CHANNELS} input channels, and at least as many after"
        )
    new = weight.new_zeros(weight.shape[0], in_channels - LATENT_CHANNELS, *weight.shape[2:])
    return torch.cat([weight, new], dim=1)


def _adaptation(name: str, found: Shape, want: Shape, widen: bool) -> Callable[[Tensor], Tensor] | None:
    """How a tensor of another shape becomes the one that is wanted; None where it does not."""
    if found == want or len(found) != len(want):
        return None
    if widen and name == _PATCH_EMBEDDING and found == (want[0], LATENT_CHANNELS, *want[2:]):
        return lambda weight: widen_patch_embedding(weight, want[1])
    if _TIME_GROWTH.fullmatch(name) and found == (2 * want[0], want[1], 1, 1):
        # The published autoencoder can double time at more stages than it is used with; the second frame's
        # channels are kept. Source: madebyollin/taehv, taehv.py, patch_tgrow_layers (MIT).
        return lambda weight: weight[-want[0] :]
    return None
