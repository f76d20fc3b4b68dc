"""Options that came as names and values become a checked dataclass: every mistake names the option."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from inspatio_sim.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 70
_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", Path: "a path", NoneType: "None"}


def build(kind: type[ConfigT], options: Mapping[Any, Any], owner: str, others: Sequence[str] = ()) -> ConfigT:
    """Make a config. A text may stand for a path, a list for a tuple, a mapping for another config.

    Args:
        kind: a dataclass that checks its own values (`check_types`).
        options: values by field name.
        owner: whose options these are, for the error.
        others: further names that the error offers, because the caller reads them itself.

    Raises:
        InputError: an option that `kind` does not have, or a value that it refuses.
    """
    hints = get_type_hints(kind)
    known = [option.name for option in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name, value in options.items():
        if name not in known:
            raise InputError(f"{name}={shown(value)}: no option of {owner}: want {', '.join([*others, *known])}")
    return kind(**{name: _converted(value, hints[name], name) for name, value in options.items()})


def check_types(config: DataclassInstance) -> None:
    """Refuse a config with a value that is not of its field's type; for `__post_init__`."""
    hints = get_type_hints(type(config))
    for option in fields(config):
        value = getattr(config, option.name)
        if not _is_a(value, hints[option.name]):
            raise InputError(f"{option.name}={shown(value)}: want {_in_words(hints[option.name])}")


def shown(value: object) -> str:
    """A value as an error message quotes it: not at any length."""
    return _SHORT.repr(value)


def _converted(value: Any, hint: Any, name: str) -> Any:
    kinds = get_args(hint) if _is_union(hint) else (hint,)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if isinstance(value, list):
        return tuple(_converted(item, None, name) for item in value)
    if isinstance(value, Mapping) and is_dataclass(hint):
        return build(hint, value, name)  # pyright: ignore[reportArgumentType]
    return value


def _is_a(value: object, hint: Any) -> bool:
    if _is_union(hint):
        return any(_is_a(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    if _is_union(hint):
        return " or ".join(_in_words(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return f"({', '.join(_in_words(kind) for kind in get_args(hint))})"
    return _WORDS.get(hint) or f"{hint.__name__} or its options"


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)
