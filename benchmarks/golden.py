"""Golden data on disk, and the comparisons made with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inspatio_sim.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One `.safetensors` file with the `.json` beside it (or the same configuration in its metadata)."""

    path: Path
    name: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, path: Path) -> GoldenCase:
        """Read one case; an unreadable file is an InputError that names it."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise InputError(f"golden case {path}: cannot be read ({' '.join(str(error).split())})") from error
        card = path.with_suffix(".json")
        try:
            described = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
            config = described.get("config") or json.loads(metadata.get("config", "{}"))
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"golden case {card}: is not a json object of a case ({error})") from error
        return cls(path=path, name=str(described.get("case", path.stem)), config=config, tensors=tensors)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tensors:
            raise InputError(f"golden case {self.path}: has no tensor {key}")
        return self.tensors[key]

    def numpy(self, key: str) -> NDArray[Any]:
        return self[key].numpy()

    def setting(self, key: str) -> Any:
        if key not in self.config:
            raise InputError(f"golden case {self.path}: its configuration has no {key!r}")
        return self.config[key]

    def matching(self, pattern: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Tensors whose whole name matches, with the groups of the match."""
        for key in sorted(self.tensors):
            if match := re.fullmatch(pattern, key):
                yield key, match.groups()


@dataclass
class Comparison:
    """The worst of several tensors that are compared in the same way."""

    name: str
    unit: str
    tolerance: float
    max_error: float = 0.0
    worst: str = ""  # the tensor with that error
    num_tensors: int = 0

    @property
    def passed(self) -> bool:
        return self.max_error <= self.tolerance


@dataclass
class ParityReport:
    """What was compared, and what was not."""

    comparisons: dict[str, Comparison] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def num_tensors(self) -> int:
        return sum(comparison.num_tensors for comparison in self.comparisons.values())

    def compare(
        self,
        name: str,
        key: str,
        computed: Any,
        golden: Tensor,
        *,
        tolerance: float,
        unit: str,
        where: Tensor | None = None,
    ) -> None:
        """Add one tensor to the comparison `name`; only where `where` is true, if given."""
        comparison = self.comparisons.setdefault(name, Comparison(name=name, unit=unit, tolerance=tolerance))
        error = max_error(torch.as_tensor(computed), golden, where)
        comparison.num_tensors += 1
        if not comparison.worst or error > comparison.max_error:
            comparison.max_error, comparison.worst = error, key

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append({"name": name, "reason": reason})


def max_error(computed: Tensor, golden: Tensor, where: Tensor | None = None) -> float:
    """Largest absolute difference; infinite if shapes differ or anything is NaN."""
    if computed.shape != golden.shape:
        return float("inf")
    difference = (computed.double() - golden.double()).abs()
    if where is not None:
        difference = difference[where.bool().expand_as(difference)]
    if difference.numel() == 0:
        return 0.0
    worst = float(difference.max())
    return worst if worst == worst else float("inf")
