import json
import math
from contextlib import redirect_stdout
from io import StringIO

import pytest

pytest.importorskip("diagnostic_msgs", reason="diagnostic_msgs is not installed")

from benchmarks import ros
from benchmarks.ros import Case, is_still, num_lost, rate_hz

SMALL = Case(size_px=(48, 80), seconds=2.0, small_px=(48, 80), num_commands=2)
MS_NS = 1_000_000


def report_of(*arguments):
    out = StringIO()
    with redirect_stdout(out):
        assert ros.main([*arguments, "--json"], SMALL) == 0
    report = json.loads(out.getvalue())
    assert report["benchmark"] == "ros"
    values = {row["name"]: row["value"] for row in report["results"]}
    assert len(values) == len(report["results"])
    assert all(math.isfinite(value) for value in values.values())
    return report["results"], values


@pytest.mark.slow
def test_every_figure_is_measured_with_two_processes():
    rows, values = report_of()
    floors = {row["name"]: (row["floor"], row["better"]) for row in rows if row["floor"] or row["better"] == "lower"}
    streams = ("48x80, reliable", "48x80, best effort")
    assert floors == {
        "48x80: images, infos, odom, scan made": (2, "lower"),
        **{f"{what}: whole frames": (24, "higher") for what in streams},
        **{f"{what}: publish to callback, p95": (20, "lower") for what in streams},
        **{f"{what}: lost": (0, "lower") for what in streams},
        "48x80, block of 83 ms: cmd_vel to changed pixel, p95": (133, "lower"),
    }
    parts_ms = [values[f"48x80: {name} made"] for name in (ros.COLOR, ros.DEPTH, "scan")]
    assert 0 < max(parts_ms) < values["48x80: images, infos, odom, scan made"]
    for what in streams:
        assert 5 < values[f"{what}: whole frames"] < 35  # 30 are made
        assert 0 < values[f"{what}: publish to callback, median"] <= values[f"{what}: publish to callback, p95"]
    assert values["48x80, block of 83 ms: cmd_vel to changed pixel, median"] > 0


@pytest.mark.slow
def test_soak_watches_memory_and_gaps():
    rows, values = report_of("--soak", "0.2")
    assert 60 < values["soak: frames"] < 180  # ten a second for 12 s, and a little more
    assert values["soak: longest gap between frames"] > 90
    assert values["soak: memory at the end"] > 50
    floors = {row["name"]: row["floor"] for row in rows if row["better"] == "lower"}
    assert floors == {"soak: memory": 5, "soak: frames more than 200 ms late": 0, "soak: lost": 0}


def test_what_is_counted():
    assert rate_hz([0, 50 * MS_NS, 100 * MS_NS]) == pytest.approx(20)
    stamps_ns = [round(1e9 * (i + 1) / 30) for i in range(60)]
    assert num_lost(stamps_ns, 30) == 0
    assert num_lost([*stamps_ns[:7], *stamps_ns[9:]], 30) == 2
    assert num_lost([*stamps_ns, stamps_ns[3]], 30) == 0  # shown twice
    assert is_still([b"a", *5 * [b"b"]])
    assert not is_still([*5 * [b"b"], b"a"])
    assert not is_still(4 * [b"b"])


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_bad_arguments(minutes, capsys):
    assert ros.main(["--soak", minutes]) == 2
    assert capsys.readouterr().err == f"error: --soak {float(minutes):g}: want at least 0.2 minutes\n"
