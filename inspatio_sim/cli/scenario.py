"""`inspatio-sim scenario`; its options are in `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from inspatio_sim.cli.options import EXIT_USER_ERROR, ScenarioCheck, ScenarioRun
from inspatio_sim.cli.tables import two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.scenario.model import Scenario
from inspatio_sim.scenario.report import summary, write_html, write_junit
from inspatio_sim.scenario.runner import ScenarioResult, run_scenario
from inspatio_sim.scenario.schema import load_scenario
from inspatio_sim.scenario.worlds import WorldMaker

EXIT_FAILED = 1


def run(options: ScenarioRun | ScenarioCheck, terminal: Terminal) -> int:
    """Run one action; returns the exit code."""
    if isinstance(options, ScenarioCheck):
        return check_scenarios(options, terminal)
    return run_scenarios(options, terminal)


def run_scenarios(options: ScenarioRun, terminal: Terminal) -> int:
    """`inspatio-sim scenario run`: 0 if all passed, 1 if an expectation failed, 2 if one could not be run."""
    for path in (options.junit, options.report):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: is a folder: want a file to write")
    scenarios = _load(options.files, needs_images=not options.update_images)
    maker = WorldMaker()
    with terminal.progress() as progress:
        results = [
            run_scenario(scenario, maker, updates_images=options.update_images, progress=progress)
            for scenario in scenarios
        ]
    if options.junit is not None:
        write_junit(results, options.junit)
    if options.report is not None:
        write_html(results, options.report)
    failures = [line for result in results for line in result.failures]
    terminal.result(summary(results), _table(results), *failures)
    if terminal.is_quiet and not terminal.wants_json:
        for line in failures:
            terminal.err.print(line, highlight=False, soft_wrap=True)
    statuses = {result.status for result in results}
    if "error" in statuses:
        return EXIT_USER_ERROR
    return EXIT_FAILED if "failed" in statuses else 0


def check_scenarios(options: ScenarioCheck, terminal: Terminal) -> int:
    """`inspatio-sim scenario check`."""
    scenarios = _load(options.files, needs_images=True)
    facts = [{"file": str(s.file), "name": s.name, "num_steps": len(s.steps)} for s in scenarios]
    report: dict[str, Any] = {"command": "scenario check", "scenarios": facts}
    rows = {str(s.file): f"{s.name}: {len(s.steps)} steps" for s in scenarios}
    terminal.result(report, two_columns("Nothing wrong", rows))
    return 0


def _load(files: tuple[Path, ...], *, needs_images: bool) -> list[Scenario]:
    """Load all scenarios before the first is run."""
    if not files:
        raise InputError("no scenario: want one or more FILE.scenario.yaml")
    return [load_scenario(file, needs_images=needs_images) for file in files]


def _table(results: list[ScenarioResult]) -> Table:
    table = Table(title="Scenarios", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("", "scenario", "steps", "frames", "seconds"):
        table.add_column(name, justify="left" if name in ("", "scenario") else "right", overflow="fold")
    for result in results:
        colour = "green" if result.status == "passed" else "red"
        numbers = (str(len(result.steps)), str(result.num_frames), f"{result.seconds:.2f}")
        table.add_row(Text(result.status, style=colour), result.scenario.name, *numbers)
    return table
