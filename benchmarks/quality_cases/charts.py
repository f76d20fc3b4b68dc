"""Bars and curves as pictures, and sheets of films beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.quality_cases.results import BASELINE, STUDENT
from benchmarks.quality_cases.run import FRAME, Drift, Measured, Sheet
from inspatio_sim.pictures import Picture, save_png, side_by_side

SIZE_PX = (360, 900)  # height and width of a chart
MARGIN_PX = (34, 190, 34, 60)  # top, right (the legend), bottom, left
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75),
           (227, 119, 194), (127, 127, 127))  # fmt: skip
INK, GRID, PAPER = (40, 40, 40), (225, 225, 225), 255
NUM_GRID_LINES = 5
SHEETS = 8  # places of which films are saved
SHEET_FRAMES = 4
SHEET_FILMS = ("truth", "reference", "condition", STUDENT, FRAME, "teacher", BASELINE)


def save_pictures(measured: Measured, folder: Path) -> list[Path]:
    """Write all charts and sheets; returns their files."""
    pictures: dict[str, Picture] = {}
    means = {name: method.means() for name, method in measured.methods.items()}
    for key, title in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        parts = {"": "all pixels", "_known": "known", "_unknown": "unknown"}
        suffix = "_db" if key == "psnr" else ""
        values = {
            name: {label: row[f"{key}{part}{suffix}"] for part, label in parts.items()} for name, row in means.items()
        }
        pictures[key] = bars(title, values)
    pictures["frechet"] = bars(
        "Frechet distance to the truth", {name: method.frechet for name, method in measured.methods.items()}
    )
    pictures |= _drift_charts(measured.drifts)
    for sheet in measured.sheets[:SHEETS]:
        pictures[f"films {sheet.place}".replace(" ", "-")] = films(sheet)
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")
        save_png(paths[-1], picture)
    return paths


def films(sheet: Sheet) -> Picture:
    """Some frames of each film: a row for each moment."""
    shown = {name: sheet.films[name] for name in SHEET_FILMS if name in sheet.films}
    moments = np.linspace(0, len(sheet.films["reference"]) - 1, SHEET_FRAMES).round().astype(int)
    panels = {f"{name} {i}": frames_u8[i] for i in moments for name, frames_u8 in shown.items()}
    return side_by_side(panels, columns=len(shown))


def bars(title: str, values: Mapping[str, Mapping[str, float]]) -> Picture:
    """Groups of bars from 0 up: group -> bar -> value; NaN leaves a gap."""
    labels = list(next(iter(values.values())))
    finite = [v for group in values.values() for v in group.values() if np.isfinite(v)]
    chart = _Chart(title, (0, len(values)), (0.0, 1.1 * max([*finite, 1e-9])), labels)
    for g, (name, group) in enumerate(values.items()):
        width = 0.8 / len(group)
        for b, value in enumerate(group.values()):
            if np.isfinite(value):
                left = g + 0.1 + b * width
                chart.box(left, left + 0.92 * width, value, COLOURS[b % len(COLOURS)])
        chart.below(g + 0.5, name, row=g % 2)  # neighbours' names may be long
    return chart.picture


def curves(title: str, values: Mapping[str, Sequence[float]], x_label: str) -> Picture:
    """Lines: name -> value at 1, 2, ..."""
    everything = np.concatenate([np.asarray(line, np.float64) for line in values.values()])
    low, high = float(everything.min()), float(everything.max())
    border = 0.1 * (high - low) + 0.02 * abs(high) + 1e-9
    longest = max(len(line) for line in values.values())
    chart = _Chart(title, (0.5, longest + 0.5), (low - border, high + border), list(values))
    for i, line in enumerate(values.values()):
        chart.line(np.arange(1, len(line) + 1), np.asarray(line, np.float64), COLOURS[i % len(COLOURS)])
    for x in np.unique(np.linspace(1, longest, 6).round().astype(int)):
        chart.below(float(x), str(x))
    chart.below(longest * 0.99, x_label, row=1)
    return chart.picture


def _drift_charts(drifts: Mapping[str, Sequence[Drift]]) -> dict[str, Picture]:
    charts = {}
    for name, title in (("mean", "mean of a round"), ("variance", "variance"), ("change", "change frame to frame")):
        lines = {
            f"{method}, {drift.place}": getattr(drift.film, name) / getattr(drift.truth, name)[0]
            for method, some in drifts.items()
            for drift in some
        }
        if lines:
            charts[f"drift-{name}"] = curves(f"{title}, over the truth's", lines, "round")
    return charts


class _Chart:
    """A white sheet with axes; positions are in the units of the data."""

    def __init__(
        self, title: str, x_range: tuple[float, float], y_range: tuple[float, float], legend: Sequence[str]
    ) -> None:
        self.picture: Picture = np.full((*SIZE_PX, 3), PAPER, np.uint8)
        self._x_range, self._y_range = x_range, y_range
        top, right, bottom, left = MARGIN_PX
        self._area_px = (left, top, SIZE_PX[1] - right, SIZE_PX[0] - bottom)
        for y in np.linspace(*y_range, NUM_GRID_LINES):
            self._stroke(self._at(x_range[0], y), self._at(x_range[1], y), GRID)
            self._text(f"{y:.3g}", (6, self._at(0, y)[1] + 4))
        self._stroke(self._at(x_range[0], y_range[0]), self._at(x_range[1], y_range[0]), INK)
        self._text(title, (left, 20), 0.5)
        for i, label in enumerate(legend):
            place = (SIZE_PX[1] - right + 12, top + 12 + 20 * i)
            cv2.rectangle(self.picture, place, (place[0] + 10, place[1] + 10), COLOURS[i % len(COLOURS)], -1)
            self._text(label, (place[0] + 16, place[1] + 9))

    def box(self, left: float, right: float, height: float, colour: tuple[int, int, int]) -> None:
        """A bar from 0."""
        cv2.rectangle(self.picture, self._at(left, 0), self._at(right, height), colour, -1)

    def line(self, x: np.ndarray, y: np.ndarray, colour: tuple[int, int, int]) -> None:
        """A curve with a dot at each value."""
        points = [self._at(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        for a, b in zip(points[:-1], points[1:], strict=True):
            self._stroke(a, b, colour, 2)
        for point in points:
            cv2.circle(self.picture, point, 3, colour, -1, cv2.LINE_AA)

    def below(self, x: float, text: str, row: int = 0) -> None:
        """Words under the axis, with their middle at x."""
        width_px = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)[0][0]
        self._text(text, (self._at(x, 0)[0] - width_px // 2, self._area_px[3] + 15 + 14 * row))

    def _at(self, x: float, y: float) -> tuple[int, int]:
        left, top, right, bottom = self._area_px
        (x_low, x_high), (y_low, y_high) = self._x_range, self._y_range
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return round(left + across * (right - left)), round(bottom - up * (bottom - top))

    def _stroke(self, a: tuple[int, int], b: tuple[int, int], colour: tuple[int, int, int], width_px: int = 1) -> None:
        cv2.line(self.picture, a, b, colour, width_px, cv2.LINE_AA)

    def _text(self, text: str, place: tuple[int, int], size: float = 0.36) -> None:
        cv2.putText(self.picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
