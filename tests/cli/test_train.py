"""The training command: its bar, and what it refuses."""

import io

import pytest
from rich.console import Console

from inspatio_sim.cli.main import main
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.cli.train import training_progress


def test_progress_shows_steps_time_left_and_losses() -> None:
    terminal = Terminal()
    terminal.err = Console(file=io.StringIO(), force_terminal=True, width=120)
    with training_progress(terminal, "training the teacher") as report:
        report(3, 8, {})
        report(8, 8, {"lr": 0.1, "student_loss": 0.1234})
    assert isinstance(terminal.err.file, io.StringIO)
    shown = terminal.err.file.getvalue()
    assert all(words in shown for words in ("training the teacher", "8/8", "left", "student_loss 0.123"))
    assert "lr 0.1" not in shown


def test_no_progress_when_quiet() -> None:
    terminal = Terminal(quiet=True)
    terminal.err = Console(file=io.StringIO(), force_terminal=True)
    with training_progress(terminal, "training") as report:
        report(1, 2, {"loss": 1.0})
    assert isinstance(terminal.err.file, io.StringIO)
    assert terminal.err.file.getvalue() == ""


@pytest.mark.parametrize("stage", ["star/distil", "frame", "teacher", "frame/teacher"])
def test_a_stage_that_does_not_exist_is_one_line(stage, capsys):
    assert main(["train", stage, "--config", "test"]) == 2
    said = capsys.readouterr().err
    assert f"train {stage}: want one of codec/train, depth/train, star/teacher" in said
    assert "frame/distill-one, frame/ship" in said
    assert said.count("\n") == 1
