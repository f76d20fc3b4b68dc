"""What a case puts out, by name: arrays, bytes, or what JSON holds. Their fingerprints, and how two records differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

KEPT_BYTES = 4 << 20  # arrays up to this size are kept whole, to say later how far another one is from them
MAX_LINES = 3  # of differences within one JSON value

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The values of one case."""

    entries: dict[str, dict[str, Any]]  # name -> kind, sha256, and what describes the value
    arrays: dict[str, np.ndarray]  # the small ones

    def save(self, path: Path) -> None:
        """PATH.json, and PATH.safetensors for the arrays."""
        path.with_suffix(".json").write_text(json.dumps(self.entries, indent=1))
        save_file(self.arrays, path.with_suffix(".safetensors"))

    @classmethod
    def load(cls, path: Path) -> Record:
        """What `save` wrote."""
        entries = json.loads(path.with_suffix(".json").read_text())
        return cls(entries=entries, arrays=load_file(path.with_suffix(".safetensors")))


def record_of(values: Values, *, excluded: Mapping[str, str] | None = None, places: Values | None = None) -> Record:
    """Fingerprints of values.

    Args:
        values: by name; arrays, bytes, or anything JSON-ready, in which numpy's numbers and arrays may be.
        excluded: patterns of names, or of NAME/KEY/KEY within JSON, that are left out, and why.
        places: texts, such as the path of a temporary folder, that stand for these ones within JSON.
    """
    patterns = tuple(excluded or ())
    entries: dict[str, dict[str, Any]] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if _is_excluded(name, patterns):
            continue
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            entries[name] = {"kind": "array", "dtype": array.dtype.str, "shape": list(array.shape)}
            content = array.tobytes()
            if len(content) <= KEPT_BYTES:
                arrays[name] = array
        elif isinstance(value, bytes):
            entries[name], content = {"kind": "bytes", "length": len(value)}, value
        else:
            plain = _without(json.loads(json.dumps(value, default=_plain)), name, patterns, dict(places or {}))
            entries[name], content = {"kind": "json", "value": plain}, json.dumps(plain, sort_keys=True).encode()
        entries[name]["sha256"] = hashlib.sha256(content).hexdigest()
    return Record(entries=entries, arrays=arrays)


def differences(before: Record, now: Record) -> Iterator[str]:
    """A line for each name whose value is not what it was; none if all is equal."""
    for name in [*before.entries, *(name for name in now.entries if name not in before.entries)]:
        old, new = before.entries.get(name), now.entries.get(name)
        if old is None or new is None:
            yield f"{name}: {'is new' if old is None else 'is gone'}"
        elif old != new:
            yield f"{name}: {_how(name, old, new, before, now)}"


def _how(name: str, old: dict[str, Any], new: dict[str, Any], before: Record, now: Record) -> str:
    for fact in ("kind", "dtype", "shape", "length"):
        if old.get(fact) != new.get(fact):
            return f"{fact} was {old.get(fact)}, is {new.get(fact)}"
    if old["kind"] == "json":
        lines = list(_json_differences(old["value"], new["value"], ""))
        more = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
        return "; ".join([*lines[:MAX_LINES], *more])
    if name in before.arrays and name in now.arrays:
        return _array_difference(before.arrays[name], now.arrays[name])
    return "other bytes"


def _array_difference(old: np.ndarray, new: np.ndarray) -> str:
    if old.dtype.kind not in "biuf":
        return "other values"
    is_other = (old != new) & ~((old != old) & (new != new))  # NaN here and there is no difference
    if not is_other.any():
        return "other bytes, but equal as numbers: signs of zeros, or kinds of NaN"
    first = tuple(int(i) for i in np.argwhere(is_other)[0])
    with np.errstate(invalid="ignore"):
        gap = np.abs(old.astype(np.float64) - new.astype(np.float64))[is_other]
    return (
        f"max abs difference {np.max(gap):.6g} in {np.count_nonzero(is_other)} of {old.size} values, "
        f"first at {list(first)}: was {old[first]}, is {new[first]}"
    )


def _json_differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in old or key not in new:
                yield f"{path}/{key} {'is new' if key not in old else 'is gone'}"
            else:
                yield from _json_differences(old[key], new[key], f"{path}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _json_differences(before, now, f"{path}/{i}")
    elif json.dumps(old) != json.dumps(new):  # NaN is what it was
        yield f"{path} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without(value: Any, path: str, patterns: tuple[str, ...], places: dict[str, Any]) -> Any:
    """A JSON value without what is excluded, and with other names for places."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _is_excluded(f"{path}/{key}", patterns)}
        return {key: _without(item, f"{path}/{key}", patterns, places) for key, item in kept.items()}
    if isinstance(value, list):
        return [_without(item, f"{path}/{i}", patterns, places) for i, item in enumerate(value)]
    if isinstance(value, str):
        for place, stands_for in places.items():
            value = value.replace(place, stands_for)
    return value


def _is_excluded(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _plain(value: Any) -> Any:
    """What JSON cannot hold as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r}: want an array, bytes, or what JSON holds")
