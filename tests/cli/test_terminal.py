"""What the terminal shows is what was said: nothing in the names of files is markup."""

from __future__ import annotations

import logging

import pytest
from rich.table import Table

from inspatio_sim.cli.tables import two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.cli.train import training_progress

NAMES = ("walk[red]", "[/red]", "inspatio-sim[depth]", "a:bug:b", "[link=x]y[/link]")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("place", ["title", "name", "value", "line", "header"])
def test_results_show_names_as_they_are(place: str, name: str, capsys: pytest.CaptureFixture[str]):
    headed = Table(name)
    shown = {
        "title": two_columns(name, {"x": "a long enough value"}),
        "name": two_columns("", {name: "x"}),
        "value": two_columns("", {"x": name}),
        "line": name,
        "header": headed,
    }
    Terminal().result({}, shown[place])
    assert name in capsys.readouterr().out


def test_progress_shows_names_as_they_are(name: str, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal, where there are bars
    monkeypatch.setenv("COLUMNS", "200")
    with Terminal().progress() as progress:
        progress(f"reading {name}", 1.0)
    assert f"reading {name}" in capsys.readouterr().err


def test_the_bar_of_a_training_shows_names_as_they_are(name: str, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with training_progress(Terminal(), name) as show:
        show(1, 2, {f"loss of {name}": 0.5})
    said = capsys.readouterr().err
    assert f"loss of {name} 0.5" in said
    assert said.count(name) >= 2


def test_notes_show_names_as_they_are(name: str, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(logging.root, "handlers", [])
    Terminal()
    logging.getLogger("inspatio_sim.clips.video").warning("%s: cut off", name)
    assert f"{name}: cut off" in capsys.readouterr().err
