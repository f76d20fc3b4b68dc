"""Conditions go in (renders and known masks); whole frames come out.

`generator_by_name` is the registry; `protocol.Generator` is what each of them offers.
"""

from __future__ import annotations

from typing import Any

from inspatio_sim.errors import InputError
from inspatio_sim.generators.protocol import Generator, GeneratorState
from inspatio_sim.generators.warp import WarpGenerator

__all__ = ["GENERATORS", "Generator", "GeneratorState", "generator_by_name", "name_of"]

GENERATORS: dict[str, type[Generator]] = {"warp": WarpGenerator}


def generator_by_name(name: str, **options: Any) -> Generator:
    """Make a generator with its options; an unknown name is an InputError that lists the known ones."""
    if name not in GENERATORS:
        raise InputError(f"generator {name!r}: want one of {', '.join(GENERATORS)}")
    return GENERATORS[name](**options)


def name_of(generator: Generator) -> str:
    """The registered name of a generator."""
    return next(name for name, kind in GENERATORS.items() if isinstance(generator, kind))
