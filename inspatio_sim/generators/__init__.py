"""Conditions go in (renders and known masks); whole frames come out.

`kinds` is the table of what there is and `generator_by_name` makes one; `protocol.Generator` is what each offers.
"""

from inspatio_sim.generators.kinds import (
    DEFAULT_GENERATOR,
    GENERATORS,
    KINDS,
    GeneratorKind,
    generator_by_name,
    kind_by_name,
    name_of,
)

__all__ = [
    "DEFAULT_GENERATOR",
    "GENERATORS",
    "KINDS",
    "GeneratorKind",
    "generator_by_name",
    "kind_by_name",
    "name_of",
]
