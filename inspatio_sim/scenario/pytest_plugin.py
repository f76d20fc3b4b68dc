"""pytest collects `*.scenario.yaml`: each file is one test. Registered under `pytest11`, so it needs no configuration.

The rest of the package is imported only once there is a scenario.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inspatio_sim.scenario import SUFFIX

if TYPE_CHECKING:
    from inspatio_sim.scenario.worlds import WorldMaker

_MAKER: pytest.StashKey[WorldMaker] = pytest.StashKey()


class ScenarioFailed(Exception):
    """Holds the failures, one line each."""


class ScenarioItem(pytest.Item):
    """One scenario."""

    def runtest(self) -> None:
        from inspatio_sim.errors import InputError
        from inspatio_sim.scenario.runner import run_scenario
        from inspatio_sim.scenario.schema import load_scenario
        from inspatio_sim.scenario.worlds import WorldMaker

        maker = self.session.stash.setdefault(_MAKER, WorldMaker())
        try:
            result = run_scenario(load_scenario(self.path), maker)
        except InputError as error:
            raise ScenarioFailed(str(error)) from error
        if result.status != "passed":
            raise ScenarioFailed("\n".join(result.failures))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style=None):
        """The failures, without a traceback through this package."""
        if isinstance(excinfo.value, ScenarioFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"scenario: {self.name}"


class ScenarioFile(pytest.File):
    """A file with one scenario."""

    def collect(self) -> Iterator[ScenarioItem]:
        yield ScenarioItem.from_parent(self, name=self.path.name.removesuffix(SUFFIX))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """Collect the scenario files."""
    if file_path.name.endswith(SUFFIX):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None
