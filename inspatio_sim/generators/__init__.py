"""Conditions go in (renders and known masks); whole frames come out.

`generator_by_name` is the registry; `protocol.Generator` is what each of them offers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
    "options_of",
]

GENERATORS = ("star", "frame", "warp")
DEFAULT_GENERATOR = "star"


def generator_by_name(name: str, **options: Any) -> Generator:
    """Make a generator with its options.

    Args:
        name: star (the video student), frame (the image student) or warp (geometry only, holes inpainted).
        **options: of `star.load.load_star`, `frame.load.load_frame` or `WarpGenerator`.

    Raises:
        InputError: no generator has this name, or it has no such option.
    """
    unknown = set(options) - set(options_of(name))
    if unknown:
        raise InputError(f"generator {name!r} has no option {', '.join(sorted(unknown))}")
    return _maker(name)(**options)


def options_of(name: str) -> dict[str, Any]:
    """What `generator_by_name` can be told of a generator, with the defaults.

    Raises:
        InputError: no generator has this name.
    """
    return {option.name: option.default for option in inspect.signature(_maker(name)).parameters.values()}


def name_of(generator: Generator) -> str:
    """The registered name of a generator; an InputError where it has none."""
    from inspatio_sim.generators.frame.generator import FrameGenerator
    from inspatio_sim.generators.star.generator import StarGenerator

    kinds = {WarpGenerator: "warp", StarGenerator: "star", FrameGenerator: "frame"}
    name = next((name for kind, name in kinds.items() if isinstance(generator, kind)), None)
    if name is None:
        came = type(generator).__name__
        raise InputError(f"generator is a {came}: only {', '.join(GENERATORS)} can be found again by name")
    return name


def _maker(name: str) -> Callable[..., Generator]:
    """What makes a generator; the networks' are heavy, and import from this package."""
    if name == "warp":
        return WarpGenerator
    if name == "star":
        from inspatio_sim.generators.star.load import load_star

        return load_star
    if name == "frame":
        from inspatio_sim.generators.frame.load import load_frame

        return load_frame
    raise InputError(f"generator {name!r}: want one of {', '.join(GENERATORS)}")
