"""`--set trainer.max_steps=4` on the command line: single fields of nested configs, by dotted name."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from inspatio_sim.errors import InputError

Config = TypeVar("Config")

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def apply_settings(config: Config, settings: Sequence[str]) -> Config:
    """A copy of a config with some fields replaced; every config on the way checks itself again.

    Args:
        config: a frozen dataclass; its fields may be dataclasses themselves.
        settings: each `name=value` or `outer.inner=value`; the last word on a field counts. Values are read as the
            field's type says: bool, int, float, str, Path, Literal, `X | None` ("none") and tuples ("1,2,3").

    Raises:
        InputError: no such field, or no such value for it.
    """
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name.strip():
            raise InputError(f"--set {setting}: want name=value, such as trainer.max_steps=4")
        config = _replaced(config, name.strip().split("."), text.strip(), setting)
    return config


def _replaced(config: Config, path: list[str], text: str, setting: str) -> Config:
    assert dataclasses.is_dataclass(config), f"{type(config).__name__} is no dataclass"
    assert not isinstance(config, type), "want a config, not its class"
    name, *rest = path
    names = [field.name for field in dataclasses.fields(config) if field.init]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"want one of {', '.join(names)}"
        raise InputError(f"--set {setting}: {type(config).__name__} has no field {name}: {hint}")
    old = getattr(config, name)
    if dataclasses.is_dataclass(old):
        if not rest:
            inner = ", ".join(f"{name}.{field.name}" for field in dataclasses.fields(old))
            raise InputError(f"--set {setting}: {name} is a group of settings: want one of {inner}")
        new = _replaced(old, rest, text, setting)
    elif rest:
        raise InputError(f"--set {setting}: {name} is a single value, it has no {'.'.join(rest)}")
    else:
        kind = get_type_hints(type(config))[name]
        try:
            new = _parse(text, kind)
        except ValueError as error:
            raise InputError(f"--set {setting}: want {_described(kind)} for {name}, got {text!r}") from error
    return dataclasses.replace(config, **{name: new})


def _parse(text: str, kind: Any) -> Any:
    """The value a text stands for; ValueError where it stands for none of that type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        for option in arguments:
            if option is not type(None):
                try:
                    return _parse(text, option)
                except ValueError:  # the next of the union may take it
                    continue
        raise ValueError(text)
    if origin is Literal:
        found = [value for value in arguments if str(value) == text]
        if not found:
            raise ValueError(text)
        return found[0]
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        kinds = [arguments[0]] * len(parts) if arguments[1:] == (...,) else list(arguments)
        if len(parts) != len(kinds):
            raise ValueError(text)
        return tuple(_parse(part, each) for part, each in zip(parts, kinds, strict=True))
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError(text)
        return _TRUTH[text.lower()]
    if kind in (int, float, str, Path):
        return kind(text)
    raise AssertionError(f"{kind} cannot be set from the command line")


def _described(kind: Any) -> str:
    """A type in words: "a whole number", "one of bfloat16, float32"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if option is type(None) else _described(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        if arguments[1:] == (...,):
            return f"a list ({_described(arguments[0])} each), such as 1,2,3"
        return f"{len(arguments)} values with commas between ({', '.join(map(_described, arguments))})"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return words.get(kind, str(kind))
