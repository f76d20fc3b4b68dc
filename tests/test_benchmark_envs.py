import json
import math

import numpy as np
import pytest

from benchmarks import envs
from benchmarks.envs import Case, has_nan, soak

WARP = {"generator": "warp", "size_px": (32, 48), "max_frames": 8}
STAR = {
    "generator": "star",
    "generator_options": {"random_weights": True, "dtype": "float32", "block_latents": 1, "steps": [1000]},
    "size_px": (32, 48),
    "max_frames": 8,
}
SMALL = Case(warp=WARP, warp_name="warp, small", num_warp_steps=2, star=STAR, star_name="star, small", num_star_steps=1)


@pytest.fixture(scope="module")
def report():
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert envs.main(["--json"], SMALL) == 0
    return json.loads(out.getvalue())


def test_every_figure_is_a_number_and_named_once(report):
    assert report["benchmark"] == "envs"
    values = {row["name"]: row["value"] for row in report["results"]}
    assert len(values) == len(report["results"])
    assert all(math.isfinite(value) and value >= 0 for value in values.values())
    floors = {row["name"]: (row["floor"], row["better"]) for row in report["results"] if row["floor"]}
    assert floors == {
        "warp, small, 8 worlds, all": (400, "higher"),
        "warp, small, 1 world": (120, "higher"),
        "star, small, 1 world": (24, "higher"),
        "star, small, 4 worlds over 1": (1.5, "higher"),
        "star, small: env over World.step": (5, "lower"),
        "warp, small: env over World.step": (5, "lower"),
        "star, small: snapshot without its map": (5, "lower"),
        "star, small: restore": (50, "lower"),
    }


def test_figures_that_follow_from_others(report):
    values = {row["name"]: row["value"] for row in report["results"]}
    ratio = values["star, small, 4 worlds, all"] / values["star, small, 1 world"]
    assert values["star, small, 4 worlds over 1"] == pytest.approx(ratio)
    assert 0 < values["star, small: snapshot without its map"] < values["star, small: map in the snapshot"] < 100


@pytest.mark.parametrize("task", envs.TASKS)
def test_soak_counts_what_happened(task):
    found = soak(task, 60, WARP | {"max_steps": 5}, num_worlds=2)
    assert (found.num_steps, found.num_nan, found.num_exceptions) == (60, 0, 0)
    assert found.num_episodes >= 12
    assert found.growth_percent is not None
    assert all(row.is_reached for row in found.rows()[1:])


def test_soak_stops_at_an_exception_and_counts_it(monkeypatch, capsys):
    monkeypatch.setattr(envs, "resident_bytes", lambda: [][0])
    found = soak("free", 60, WARP, num_worlds=2)
    assert (found.num_steps, found.num_exceptions, found.growth_percent) == (0, 1, None)
    assert "IndexError" in capsys.readouterr().err
    assert {row.name for row in found.rows() if not row.is_reached} == {"soak, free: exceptions"}


def test_nan_is_found_however_deep():
    fine = {"a": np.ones(3, np.float32), "b": {"c": np.array([{"d": 1.0}, None], object)}, "e": "text", "f": 3}
    assert not has_nan(fine)
    for bad in (np.nan, np.array([1, np.inf]), np.array([{"d": float("nan")}], object)):
        assert has_nan(fine | {"b": {"c": bad}})


def test_bad_arguments(capsys):
    assert envs.main(["--soak", "5"]) == 2
    assert "error: --soak 5: want at least 100 steps" in capsys.readouterr().err
