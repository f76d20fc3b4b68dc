"""`inspatio-sim scenario` as CI meets it: exit codes, JUnit XML, one page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from inspatio_sim.cli.main import main

PASSES = "  - {wait: 0.1, expect: [collision: false]}"
FAILS = """\
  - {name: "a <b> & \\x01", wait: 0.1, expect: [known: {max: 0.1}, collision: false]}
  - waypoints: {through_xz_m: [[0, 50]]}
  - wait: 1"""


def run(*arguments: object) -> int:
    return main(["scenario", *map(str, arguments)])


def test_all_passed(write, tmp_path, capsys):
    junit, page = tmp_path / "new" / "out.xml", tmp_path / "out.html"
    assert run("run", write(PASSES), "--junit", junit, "--report", page, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert report["scenarios"][0]["steps"][0]["expectations"][0]["measured"] == "no collision"
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "0")
    assert "<img" not in page.read_text(encoding="utf-8")


def test_failures_in_terminal_junit_and_page(write, tmp_path, capsys):
    junit, page = tmp_path / "out.xml", tmp_path / "out.html"
    files = (write(PASSES, name="good.scenario.yaml"), write(FAILS))
    assert run("run", *files, "--junit", junit, "--report", page) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "want at most 0.1" in said
    assert "outside the map" in said

    root = ElementTree.parse(junit).getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "2", "0", "1"]
    suite = root.findall("testsuite")[1]
    cases = suite.findall("testcase")
    assert cases[0].get("name") == "1. a <b> & \N{REPLACEMENT CHARACTER}"
    assert [[child.tag for child in case if child.tag != "system-out"] for case in cases] == [
        ["failure"],
        ["failure"],
        ["skipped"],
    ]
    assert cases[1].get("line") == "4"

    text = page.read_text(encoding="utf-8")
    HTMLParser().feed(text)
    assert "a &lt;b&gt; &amp;" in text
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,|#)", text)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert len(pictures) == 5  # frame, provenance and map of the expectation; frame and map of the step
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (80, 48)


def test_quiet_says_failures_only(write, capsys):
    assert run("run", write(PASSES), "--quiet") == 0
    path = write("  - {wait: 0.1, expect: [collision: true]}")
    assert run("run", path, "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{path}:3: wait 0.1 s: collision: no collision: want a collision\n"


def test_nothing_runs_if_one_file_is_wrong(write, tmp_path, capsys):
    good, bad = write(PASSES), write("  - wait: soon", name="bad.scenario.yaml")
    junit = tmp_path / "out.xml"
    for command in (("run", good, bad, "--junit", junit), ("check", good, bad)):
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert (
            error
            == f"inspatio-sim: error: {bad}:3: steps[0].wait: is 'soon': want a finite number above 0 and at most 600\n"
        )  # noqa: E501
    assert not junit.exists()


def test_a_world_that_cannot_be_made_is_bad_input_and_in_the_reports(write, tmp_path, capsys):
    bad = write(PASSES, world=", generator_options: {colour: red}", name="bad.scenario.yaml")
    junit = tmp_path / "out.xml"
    assert run("run", bad, write(PASSES), "--junit", junit) == 2
    assert "has no option colour" in " ".join(capsys.readouterr().out.split())
    suites = ElementTree.parse(junit).getroot().findall("testsuite")
    assert [(suite.get("errors"), suite.get("skipped")) for suite in suites] == [("1", "1"), ("0", "0")]


def test_check(write, capsys):
    assert run("check", write(PASSES), "--json") == 0
    assert json.loads(capsys.readouterr().out)["scenarios"][0]["num_steps"] == 1
    needs_picture = write("  - {wait: 0.1, expect: [image: {file: a.png, min_ssim: 1}]}")
    assert run("check", needs_picture) == 2
    assert "--update-images writes it" in capsys.readouterr().err
    assert run("run", needs_picture, "--update-images", "--quiet") == 0
    assert run("check", needs_picture, "--quiet") == 0


@pytest.mark.parametrize("arguments", [("run",), ("check",), ("walk", "a"), ("run", "none.scenario.yaml")])
def test_mistakes_at_the_command_line(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_that_cannot_be_written(write, tmp_path, capsys):
    assert run("run", write(PASSES), "--junit", tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err


def test_help_says_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        run("run", "--help")
    assert stop.value.code == 0
    said = " ".join(re.sub(r"[│\s]+", " ", capsys.readouterr().out).split())
    assert "Exit code 0: all expectations held. 1: one failed" in said
    assert "2: a file, a clip or a model is unusable" in said
