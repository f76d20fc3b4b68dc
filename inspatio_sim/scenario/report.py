"""Results of scenarios, for machines (JSON, JUnit XML) and for people (one self-contained HTML page)."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.pictures import Picture
from inspatio_sim.scenario.expectations import Verdict
from inspatio_sim.scenario.runner import ScenarioResult, StepResult

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_SCALE_PX = 160  # images lower than this are shown at twice the size


def summary(results: Sequence[ScenarioResult]) -> dict[str, Any]:
    """Everything except the images, JSON-ready; wall times are separate, under `timings_s`."""
    return {
        "command": "scenario run",
        "passed": all(result.status == "passed" for result in results),
        "scenarios": [_scenario_summary(result) for result in results],
        "timings_s": {str(result.scenario.file): _timings(result) for result in results},
    }


def _scenario_summary(result: ScenarioResult) -> dict[str, Any]:
    return {
        "file": str(result.scenario.file),
        "name": result.scenario.name,
        "status": result.status,
        "message": result.message,
        "num_frames": result.num_frames,
        "steps": [
            {
                "title": step.title,
                "line": step.line,
                "status": step.status,
                "message": step.message,
                "num_frames": step.num_frames,
                "expectations": [_verdict_summary(verdict) for verdict in step.verdicts],
            }
            for step in result.steps
        ],
    }


def _verdict_summary(verdict: Verdict) -> dict[str, Any]:
    facts = {"kind": verdict.kind, "line": verdict.line, "passed": verdict.passed, "wanted": verdict.wanted}
    return facts if verdict.kind == "latency" else {**facts, "measured": verdict.measured}


def _timings(result: ScenarioResult) -> dict[str, Any]:
    steps = [
        {"line": step.line, "all": round(step.seconds, 4), "slowest_block": round(step.slowest_block_s, 4)}
        for step in result.steps
        if step.slowest_block_s is not None
    ]
    return {"all": round(result.seconds, 4), "steps": steps}


def write_junit(results: Sequence[ScenarioResult], path: Path) -> None:
    """JUnit XML: a scenario is a test suite, a step a test case; a scenario that could not start is one error."""
    root = ElementTree.Element("testsuites", name="inspatio-sim scenarios")
    for result in results:
        root.append(_suite(result))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{sum(result.seconds for result in results):.3f}")
    ElementTree.indent(root)
    with replacing(path) as temporary, writing_to(path):
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _suite(result: ScenarioResult) -> ElementTree.Element:
    scenario = result.scenario
    suite = ElementTree.Element("testsuite", name=_xml(scenario.name), time=f"{result.seconds:.3f}")
    suite.set("file", _xml(str(scenario.file)))
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("video", "generator", "seed", "clock", "collisions"):
        ElementTree.SubElement(properties, "property", name=name, value=_xml(str(getattr(scenario.world, name))))
    if result.message:
        case = ElementTree.SubElement(suite, "testcase", name="world", classname=_xml(scenario.name), time="0.000")
        ElementTree.SubElement(case, "error", message=_xml(result.message), type="InputError")
    for number, step in enumerate(result.steps, 1):
        case = ElementTree.SubElement(suite, "testcase", name=_xml(f"{number}. {step.title}"))
        case.set("classname", _xml(scenario.name))
        case.set("time", f"{step.seconds:.3f}")
        case.set("file", _xml(str(scenario.file)))
        case.set("line", str(step.line))
        _add_outcome(case, step)
        if step.slowest_block_s is not None:
            said = f"slowest block {step.slowest_block_s:.4f} s, {step.num_frames} frames in {step.seconds:.4f} s"
            ElementTree.SubElement(case, "system-out").text = said
    outcomes = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(suite.findall("testcase"))))
    for name, tag in outcomes.items():
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    return suite


def _add_outcome(case: ElementTree.Element, step: StepResult) -> None:
    if step.status == "skipped":
        ElementTree.SubElement(case, "skipped", message="an earlier step could not be carried out")
    elif step.status != "passed":
        tag = "error" if step.status == "error" else "failure"
        outcome = ElementTree.SubElement(case, tag, message=_xml("; ".join(step.failures)))
        outcome.set("type", "step" if step.message else "expectation")
        outcome.text = _xml("\n".join(step.failures))


def _xml(text: str) -> str:
    """Remove characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def write_html(results: Sequence[ScenarioResult], path: Path) -> None:
    """One page: every step with its measurements, and images where something failed."""
    page = _PAGE.format(
        title=escape(_headline(results)),
        style=_STYLE,
        overview="\n".join(_overview_row(number, result) for number, result in enumerate(results, 1)),
        scenarios="\n".join(_scenario_section(number, result) for number, result in enumerate(results, 1)),
    )
    with replacing(path) as temporary, writing_to(path):
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _headline(results: Sequence[ScenarioResult]) -> str:
    num_passed = sum(result.status == "passed" for result in results)
    return f"{num_passed} of {len(results)} scenarios passed"


def _overview_row(number: int, result: ScenarioResult) -> str:
    cells = [
        f'<a href="#scenario-{number}">{escape(result.scenario.name)}</a>',
        _badge(result.status),
        str(len(result.steps)),
        str(result.num_frames),
        f"{result.seconds:.2f} s",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _scenario_section(number: int, result: ScenarioResult) -> str:
    scenario, world = result.scenario, result.scenario.world
    height_px, width_px = world.size_px
    setting = f"{scenario.file} · {world.video}, {height_px}x{width_px} · {world.generator} · seed {world.seed}"
    parts = [
        f'<section id="scenario-{number}">',
        f"<h2>{escape(scenario.name)} {_badge(result.status)}</h2>",
        f'<p class="setting">{escape(setting)}</p>',
        f"<p>{escape(scenario.description)}</p>" if scenario.description else "",
        f'<p class="failed">{escape(result.message)}</p>' if result.message else "",
        "<table><thead><tr><th>step</th><th></th><th>frames</th><th>slowest block</th><th>measured</th></tr></thead>",
        *(_step_rows(step) for step in result.steps),
        "</table></section>",
    ]
    return "\n".join(part for part in parts if part)


def _step_rows(step: StepResult) -> str:
    latency = "" if step.slowest_block_s is None else f"{1000 * step.slowest_block_s:.1f} ms"
    said = [f'<div class="failed">{escape(step.message)}</div>'] if step.message else []
    for verdict in step.verdicts:
        mark, more = ("✓", "") if verdict.passed else ("✗", f" (wanted {verdict.wanted}; line {verdict.line})")
        kind = "passed" if verdict.passed else "failed"
        said.append(f'<div class="{kind}">{mark} {escape(f"{verdict.kind}: {verdict.measured}{more}")}</div>')
    cells = [f"{escape(step.title)} <small>line {step.line}</small>", _badge(step.status)]
    cells += [str(step.num_frames or ""), latency, "".join(said)]
    rows = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"]
    groups = [(step.title, step.pictures), *((verdict.kind, verdict.pictures) for verdict in step.verdicts)]
    for title, pictures in groups:
        if pictures:
            figures = "".join(_figure(label, picture) for label, picture in pictures.items())
            rows.append(f'<tr><td colspan="5"><b>{escape(title)}</b><div class="pictures">{figures}</div></td></tr>')
    return "\n".join(rows)


def _figure(label: str, picture: Picture) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    height_px, width_px = (side * (2 if picture.shape[0] < MAX_SCALE_PX else 1) for side in picture.shape[:2])
    image = f'<img alt="{escape(label)}" width="{width_px}" height="{height_px}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{image}<figcaption>{escape(label)}</figcaption></figure>"


def _badge(status: str) -> str:
    return f'<span class="badge {status}">{status}</span>'


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
small, .setting, figcaption { opacity: .7; }
.failed { color: #b3261e; } .passed { color: #2e7d32; }
.badge { color: #fff; border-radius: .3rem; padding: 0 .4rem; font-size: .8rem; font-weight: normal; }
.badge.passed { background: #2e7d32; } .badge.failed, .badge.error { background: #b3261e; }
.badge.skipped { background: #777; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: .4rem 0; }
img { image-rendering: pixelated; max-width: 100%; height: auto; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<table>
<thead><tr><th>scenario</th><th></th><th>steps</th><th>frames</th><th>time</th></tr></thead>
{overview}
</table>
{scenarios}
</body>
</html>
"""
