"""Numbers of a training run: a CSV table, TensorBoard's curves where it is installed."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.training.engine.distributed import Ranks

StepCallback = Callable[[int, int, Mapping[str, float]], None]
"""Called as `on_step(steps_done, max_steps, newest_metrics)` between two steps."""

Row = dict[str, float | None]


class Metrics:
    """Means of what was added since the last row, over the ranks too. Rank 0 writes the files.

    The table is `metrics.csv`: a row each time, a column each name, empty where nothing was added under it.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._path = folder / "metrics.csv"
        self._ranks = ranks
        self._pending: dict[str, list[Tensor | float]] = {}
        self._columns: list[str] = []
        self._boards: Any = None
        self.newest: dict[str, float] = {}
        """The row written last."""

    def open(self, step: int) -> None:
        """Begin, or go on after this many steps: rows of later ones, of a run that was killed, are removed."""
        if not self._ranks.is_main:
            return
        rows = [row for row in read_metrics(self._path) if (row["step"] or 0) <= step] if self._path.exists() else []
        self._columns = list(rows[0]) if rows else ["step"]
        self._write_all(rows)
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._boards = SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=step + 1)

    def add(self, name: str, value: Tensor | float) -> None:
        """Note one number; a tensor is only read when the row is written, so that a GPU need not wait."""
        self._pending.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def write(self, step: int, now: Mapping[str, float]) -> None:
        """End a row.

        Args:
            step: steps done.
            now: numbers that are no means, the same on all ranks.
        """
        means = {name: sum(values) / len(values) for name, values in self.state().items()}
        self._pending.clear()
        self.newest = {**self._ranks.mean(means), **now}
        if not self._ranks.is_main:
            return
        row: Row = {"step": step, **self.newest}
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._write_all(read_metrics(self._path))
        with writing_to(self._path), self._path.open("a", newline="") as stream:
            csv.writer(stream).writerow(self._cells(row))
        if self._boards is not None:
            for name, value in self.newest.items():
                self._boards.add_scalar(name, value, step)
            self._boards.flush()

    def close(self) -> None:
        """End TensorBoard's file."""
        if self._boards is not None:
            self._boards.close()
            self._boards = None

    def state(self) -> dict[str, list[float]]:
        """What was added since the last row."""
        return {name: [float(value) for value in values] for name, values in self._pending.items()}

    def load_state(self, state: Mapping[str, list[float]]) -> None:
        """Go on with what `state` gave."""
        self._pending = {name: list(values) for name, values in state.items()}

    def _cells(self, row: Mapping[str, float | None]) -> list[str]:
        values = [row.get(name) for name in self._columns]
        return ["" if value is None else repr(value) for value in values]

    def _write_all(self, rows: list[Row]) -> None:
        with replacing(self._path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(self._columns)
            writer.writerows(self._cells(row) for row in rows)


def read_metrics(path: Path) -> list[Row]:
    """The rows of a `metrics.csv`; None where a cell is empty. A last row cut off by a kill is left out."""
    with path.open(newline="") as stream:
        header, *lines = list(csv.reader(stream)) or [["step"]]
    if lines and not path.read_bytes().endswith(b"\n"):
        lines.pop()
    rows: list[Row] = []
    for cells in lines:
        row: Row = {name: float(cell) if cell else None for name, cell in zip(header, cells, strict=True)}
        row["step"] = int(cells[0])
        rows.append(row)
    return rows
