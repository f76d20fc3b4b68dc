"""One table of what `benchmarks.quality` measures, for several sets of weights along the same paths.

python -m benchmarks.ablations full=weights/full.safetensors no-t2v=weights/no-t2v.safetensors [--out FOLDER] [--json]

Each NAME=FILE is a student; the codec is that of --weights, or the package's own. Instead of a file it may be a
folder with both. Writes ablations.md and ablations.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.quality import add_options
from benchmarks.quality_cases.held_out import seeds_from
from benchmarks.quality_cases.results import UNITS, drift_figures, mean_over
from benchmarks.quality_cases.run import Measured, MethodName, QualityRun, measure
from benchmarks.report import size_from
from benchmarks.star_cases.machine import empty_cache_folder
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.generators.presets.find import find_file, weights_folders
from inspatio_sim.generators.presets.registry import star_preset

BESIDE: tuple[MethodName, ...] = ("tiny", "warp", "last-frame")  # along with the first student
Table = dict[str, dict[str, float]]  # name of a student -> column -> value


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        students = dict(_student(text) for text in options.students)
        table: Table = {}
        with Terminal().progress() as progress, empty_cache_folder():
            for name, path in students.items():
                with _folder_of(path, options.weights) as folder:
                    run = QualityRun(
                        seeds=seeds_from(options.seeds),
                        methods=["tiny"] if table else BESIDE,
                        weights=folder,
                        revisit_blocks=options.revisit_blocks,
                        turn_frames=0,
                        latency_steps=0,
                        drift_blocks=options.drift_blocks,
                        size_px=size_from(options.size, "96x160"),
                        num_frames=options.frames,
                        device=options.device,
                    )
                    measured = measure(run, lambda what, share, name=name: progress(f"{name}: {what}", share))
                table |= rows_of(name, measured)
        options.out.mkdir(parents=True, exist_ok=True)
        _write(options.out / "ablations.md", as_markdown(table))
        _write(options.out / "ablations.csv", as_csv(table))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(table, indent=2) if options.json else as_markdown(table))
    return 0


def rows_of(name: str, measured: Measured) -> Table:
    """A student's row, one for it with fewer steps, and those of what it was compared with."""
    table = {}
    for method, measures in measured.methods.items():
        title = method.replace("tiny", name)
        table[title] = {_column(*UNITS[key]): value for key, value in measures.means().items()}
        if method in measured.revisits:
            table[title]["way back to way out, dB"] = mean_over(measured.revisits[method], "to_way_out_db")
        if method in measured.drifts:
            drift = drift_figures(measured.drifts[method])
            table[title] |= {
                "drift of the mean, %": drift["mean_percent"],
                "drift of the variance, %": drift["variance_percent"],
                "motion kept": drift["motion_kept"],
            }
    return table


def as_markdown(table: Table) -> str:
    """A column for each student, since there are more measures than students."""
    names = list(table)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for column in _columns(table):
        cells = [_cell(table[name].get(column)) for name in names]
        lines.append(f"| {column} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """A row for each student, all digits; a cell is empty where there is nothing to measure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = _columns(table)
    writer.writerow(["name", *columns])
    for name, row in table.items():
        values = [row.get(column) for column in columns]
        writer.writerow([name, *("" if value is None or value != value else repr(value) for value in values)])
    return stream.getvalue()


def _columns(table: Table) -> list[str]:
    return list(dict.fromkeys(column for row in table.values() for column in row))


def _column(label: str, unit: str) -> str:
    return f"{label}, {unit}" if unit else label


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def _student(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise InputError(f"{text}: want NAME=FILE, such as full=weights/tiny.safetensors")
    if not Path(path).exists():
        raise InputError(f"{text}: {path} is not there")
    return name, Path(path)


@contextmanager
def _folder_of(path: Path, weights: Path | None) -> Iterator[Path]:
    """A folder in which a student's file has the name that its preset wants, with the codec beside it."""
    if path.is_dir():
        yield path
        return
    preset = star_preset("tiny")
    codec = find_file(preset, preset.wanted("codec"), weights_folders(weights))
    with TemporaryDirectory(prefix="inspatio-ablation-") as folder:
        for wanted, file in {preset.wanted("transformer"): path, preset.wanted("codec"): codec}.items():
            if file is not None:
                Path(folder, wanted.names[0]).symlink_to(file.resolve())
        yield Path(folder)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary, writing_to(path):
        temporary.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description="Students side by side.")
    made.add_argument("students", nargs="+", metavar="NAME=FILE", help="a transformer, or a folder with its codec too")
    add_options(made)
    made.add_argument("--weights", type=Path, metavar="FOLDER", help="of the codec; default: that of the package")
    made.add_argument("--out", type=Path, default=Path("outputs/ablations"), metavar="FOLDER")
    made.add_argument("--json", action="store_true", help="print one json object instead of a table")
    return made


if __name__ == "__main__":
    sys.exit(main())
