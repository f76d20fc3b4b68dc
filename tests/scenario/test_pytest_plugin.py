"""`pytest` collects `*.scenario.yaml` through the installed entry point."""

from __future__ import annotations

from tests.scenario.conftest import WORLD

pytest_plugins = ("pytester",)

GOOD = f"{WORLD}}}\nsteps:\n  - {{wait: 0.1, expect: [collision: false]}}\n"


def test_collects_runs_and_says_what_failed(pytester):
    folder = pytester.path
    (folder / "good.scenario.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "failing.scenario.yaml").write_text(GOOD.replace("false", "true"), encoding="utf-8")
    (folder / "broken.scenario.yaml").write_text(GOOD.replace("wait", "wiat"), encoding="utf-8")
    (folder / "other.yaml").write_text("a: 1", encoding="utf-8")
    result = pytester.runpytest("-v")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "good.scenario.yaml*PASSED*",
            "*failing.scenario.yaml:3: wait 0.1 s: collision: no collision: want a collision",
            "*broken.scenario.yaml:3: steps[[]0].wiat: unknown key: did you mean wait?*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_imports_little_where_there_is_no_scenario(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing_heavy():
            assert "inspatio_sim.scenario.pytest_plugin" in sys.modules
            assert "torch" not in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
