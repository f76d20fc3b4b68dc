"""Conditions go in (renders and known masks); whole frames come out.

`generator_by_name` is the registry; `protocol.Generator` is what each of them offers.
"""

from __future__ import annotations

import inspect
from typing import Any

from inspatio_sim.errors import InputError
from inspatio_sim.generators.protocol import Generation, Generator, GeneratorState, PackedState
from inspatio_sim.generators.warp import WarpGenerator

__all__ = [
    "DEFAULT_GENERATOR",
    "GENERATORS",
    "Generation",
    "Generator",
    "GeneratorState",
    "PackedState",
    "generator_by_name",
    "name_of",
]

GENERATORS = ("star", "warp")
DEFAULT_GENERATOR = "star"


def generator_by_name(name: str, **options: Any) -> Generator:
    """Make a generator with its options.

    Args:
        name: star (the video student) or warp (geometry only, holes inpainted).
        **options: of `WarpGenerator`, or of `star.load.load_star`.

    Raises:
        InputError: no generator has this name, or it has no such option.
    """
    if name == "warp":
        make = WarpGenerator
    elif name == "star":
        from inspatio_sim.generators.star.load import load_star as make  # heavy, and imports from this package
    else:
        raise InputError(f"generator {name!r}: want one of {', '.join(GENERATORS)}")
    unknown = set(options) - set(inspect.signature(make).parameters)
    if unknown:
        raise InputError(f"generator {name!r} has no option {', '.join(sorted(unknown))}")
    return make(**options)


def name_of(generator: Generator) -> str:
    """The registered name of a generator; an InputError where it has none."""
    from inspatio_sim.generators.star.generator import StarGenerator

    if isinstance(generator, WarpGenerator):
        return "warp"
    if isinstance(generator, StarGenerator):
        return "star"
    kind = type(generator).__name__
    raise InputError(f"generator is a {kind}: only {' and '.join(GENERATORS)} can be found again by name")
