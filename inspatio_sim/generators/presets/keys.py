"""Names and shapes: which ones a STAR transformer has, and how those of a file differ from a model's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inspatio_sim.checkpoints.tensors import Shape, shape_text, shown
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig

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


def expected_shapes(config: StarConfig) -> dict[str, Shape]:
    """Every tensor of a STAR transformer: Wan2.1's own names."""
    dim, ffn_dim = config.dim, config.ffn_dim
    shapes: dict[str, Shape] = {"patch_embedding.weight": (dim, config.in_channels, 1, PATCH, PATCH)}
    shapes["patch_embedding.bias"] = (dim,)

    def linear(name: str, width_in: int, width_out: int) -> None:
        shapes[f"{name}.weight"] = (width_out, width_in)
        shapes[f"{name}.bias"] = (width_out,)

    linear("text_embedding.0", config.text_dim, dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", config.freq_dim, dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", dim, 6 * dim)
    for layer in range(config.num_layers):
        block = f"blocks.{layer}"
        shapes[f"{block}.modulation"] = (1, 6, dim)
        for attention in ("self_attn", "cross_attn"):
            for projection in "qkvo":
                linear(f"{block}.{attention}.{projection}", dim, dim)
            shapes[f"{block}.{attention}.norm_q.weight"] = (dim,)
            shapes[f"{block}.{attention}.norm_k.weight"] = (dim,)
        shapes[f"{block}.norm3.weight"] = (dim,)
        shapes[f"{block}.norm3.bias"] = (dim,)
        linear(f"{block}.ffn.0", dim, ffn_dim)
        linear(f"{block}.ffn.2", ffn_dim, dim)
    shapes["head.modulation"] = (1, 2, dim)
    linear("head.head", dim, PATCH * PATCH * config.out_channels)
    return shapes


def config_from_shapes(shapes: Mapping[str, Shape], *, num_heads: int, text_len: int) -> StarConfig:
    """The sizes of a STAR transformer from its tensors.

    Args:
        shapes: of all tensors, by Wan's names; more tensors than a transformer has do not matter here.
        num_heads: attention heads, which leave no trace in the shapes.
        text_len: rows of the text embedding, which leave none either.

    Raises:
        InputError: these are no tensors of such a transformer.
    """
    try:
        dim, in_channels = shapes["patch_embedding.weight"][:2]
        return StarConfig(
            dim=dim,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            num_heads=num_heads,
            num_layers=num_blocks(shapes),
            text_dim=shapes["text_embedding.0.weight"][1],
            text_len=text_len,
            freq_dim=shapes["time_embedding.0.weight"][1],
            in_channels=in_channels,
            out_channels=shapes["head.head.weight"][0] // (PATCH * PATCH),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"no STAR transformer by its tensors ({error})") from error


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
