"""YAML with line numbers: every error names the file, the line and the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inspatio_sim.clips.images import check_readable
from inspatio_sim.errors import InputError

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 20  # nesting of lists and mappings
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, kw_only=True)
class Value:
    """One node of the file and its path."""

    node: yaml.Node
    file: Path
    key: str  # such as steps[2].expect[0].pose

    @property
    def line(self) -> int:
        return self.node.start_mark.line + 1

    def wrong(self, message: str) -> InputError:
        """The error to raise about this value."""
        return InputError(f"{self.file}:{self.line}: {f'{self.key}: ' if self.key else ''}{message}")

    def text(self, choices: Sequence[str] | None = None) -> str:
        """A string; one of `choices` if they are given."""
        if not (isinstance(self.node, yaml.ScalarNode) and self.node.tag == _TAG + "str"):
            hint = " (put it in quotes)" if isinstance(self.node, yaml.ScalarNode) and self.node.value else ""
            raise self.wrong(f"is {self._what()}: want a string{hint}")
        text = self.node.value
        if choices is not None and text not in choices:
            raise self.wrong(f"is {self._what()}: {_close(text, choices)}want one of {', '.join(choices)}")
        return text

    def flag(self) -> bool:
        """True or false."""
        if not self._is("bool"):
            raise self.wrong(f"is {self._what()}: want true or false")
        return bool(_scalar(self.node))

    def number(self, low: float = -math.inf, high: float = math.inf, *, is_above: bool = False) -> float:
        """A finite number from `low` (exclusive if `is_above`) to `high`."""
        number = math.nan
        is_plain = isinstance(self.node, yaml.ScalarNode) and self.node.style is None
        if self._is("int", "float") or (is_plain and self._is("str")):  # YAML 1.1 reads 1e-3 as a string
            try:
                number = float(_scalar(self.node))
            except (ValueError, OverflowError):
                number = math.nan
        if not math.isfinite(number) or not low <= number <= high or (is_above and number == low):
            raise self.wrong(f"is {self._what()}: want {_range('a finite number', low, high, is_above)}")
        return number

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        number = _scalar(self.node) if self._is("int") else None
        if number is None or not low <= number <= high:
            raise self.wrong(f"is {self._what()}: want a whole number from {low} to {high}")
        return int(number)

    def numbers(self, count: int) -> tuple[float, ...]:
        """A list of `count` finite numbers."""
        items = self.node.value if isinstance(self.node, yaml.SequenceNode) else []
        if len(items) != count:
            raise self.wrong(f"is {self._what()}: want a list of {count} numbers")
        return tuple(item.number() for item in self.items())

    def items(self) -> list[Value]:
        """The values of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"is {self._what()}: want a list")
        return [Value(node=node, file=self.file, key=f"{self.key}[{i}]") for i, node in enumerate(self.node.value)]

    def fields(self, known: Sequence[str] | None, needed: Sequence[str] = ()) -> dict[str, Value]:
        """The entries of a mapping; None: any names. An empty value counts as an empty mapping.

        Raises:
            InputError: it is not a mapping; a key is unknown, repeated or missing.
        """
        fields: dict[str, Value] = {}
        if not isinstance(self.node, yaml.MappingNode):
            if not self.is_null:
                raise self.wrong(f"is {self._what()}: want a mapping{_among(known, ' of ')}")
            pairs = []
        else:
            pairs = self.node.value
        for key_node, node in pairs:
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            prefix = f"{self.key}." if self.key else ""
            at_key = Value(node=key_node, file=self.file, key=f"{prefix}{name[:40]}")
            if known is not None and name not in known:
                raise at_key.wrong(f"unknown key: {_close(name, known)}known are {', '.join(known)}")
            if name in fields:
                raise at_key.wrong(f"appears twice, first in line {fields[name].line}: want it once")
            fields[name] = Value(node=node, file=self.file, key=f"{prefix}{name}")
        for name in needed:
            if name not in fields:
                raise self.wrong(f"no {name}: want it{_among(known, ', among ')}")
        return fields

    @property
    def is_null(self) -> bool:
        return self._is("null")

    def plain(self) -> Any:
        """A Python scalar, or a tuple of them."""
        if isinstance(self.node, yaml.SequenceNode):
            return tuple(item.plain() for item in self.items())
        if not self._is("str", "int", "float", "bool", "null"):
            raise self.wrong(f"is {self._what()}: want a string, a number, true or false, or a list of them")
        return _scalar(self.node)

    def _is(self, *kinds: str) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag in [_TAG + kind for kind in kinds]

    def _what(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return f"a list of {len(self.node.value)}"
        if not self._is("str", "int", "float", "bool", "null", "timestamp", "merge", "value"):
            return f"tagged {self.node.tag[:40]}"
        text = str(self.node.value)
        return "empty" if self.is_null else repr(text if len(text) <= 40 else text[:37] + "...")


def read_yaml(file: Path) -> Value:
    """Parse one YAML document, safely: no objects are made, and aliases, which can expand without end, are errors."""
    if file.is_dir():
        raise InputError(f"{file}: is a folder: want a scenario file")
    check_readable(file)
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{file}: {file.stat().st_size} bytes: want a scenario of at most {MAX_FILE_BYTES}")
    try:
        text = file.read_text(encoding="utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{file}:{line}: *{event.anchor}: aliases are not supported: want the value itself")
            if depth > MAX_DEPTH:
                raise InputError(f"{file}:{line}: {depth} nested lists and mappings: want at most {MAX_DEPTH}")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {str(error).splitlines()[0]}") from error
    if node is None:
        raise InputError(f"{file}: is empty: want a scenario")
    return Value(node=node, file=file, key="")


def _scalar(node: yaml.Node) -> Any:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, OverflowError):  # such as 0b or 1:99999
        return math.nan


def _close(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:40], known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def _among(known: Sequence[str] | None, before: str) -> str:
    return before + ", ".join(known) if known else ""


def _range(what: str, low: float, high: float, is_above: bool) -> str:
    above = "" if low == -math.inf else f" {'above' if is_above else 'of at least'} {low:g}"
    below = "" if high == math.inf else f" {'and ' if above else ''}at most {high:g}"
    return f"{what}{above}{below}"
