"""Whatever changes is found, named, and measured; what is left out is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unchanged.values import Record, differences, record_of

EXCLUDED = {"*/seconds": "wall time"}


def values() -> dict[str, Any]:
    return {
        "rgb_u8": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "depth_m": np.array([1.0, np.nan, 0.0], np.float32),
        "file": b"PGM",
        "report": {"steps": [{"share": np.float64(0.25)}], "out": "/tmp/one/run", "seconds": 1.0},
    }


def changed(name: str, value: Any, tmp_path) -> list[str]:
    """What is said where one value is another now, after what was before has been on the disk."""
    record_of(values(), excluded=EXCLUDED, places={"/tmp/one": "FOLDER"}).save(tmp_path / "case")
    now = record_of(values() | {name: value}, excluded=EXCLUDED, places={"/tmp/one": "FOLDER"})
    return list(differences(Record.load(tmp_path / "case"), now))


def test_a_changed_byte_is_found(tmp_path):
    assert changed("file", b"PGM", tmp_path) == []
    assert changed("file", b"PGN", tmp_path) == ["file: other bytes"]
    rgb_u8 = values()["rgb_u8"]
    rgb_u8[1, 0, 2] += 3
    (line,) = changed("rgb_u8", rgb_u8, tmp_path)
    assert line == "rgb_u8: max abs difference 3 in 1 of 24 values, first at [1, 0, 2]: was 14, is 17"
    (line,) = changed("depth_m", np.array([1.0, np.nan, -0.0], np.float32), tmp_path)
    assert "signs of zeros" in line
    (line,) = changed("depth_m", np.array([1.0, 2.0, 0.0], np.float32), tmp_path)
    assert "in 1 of 3 values, first at [1]: was nan, is 2.0" in line
    assert changed("depth_m", np.zeros(3), tmp_path) == ["depth_m: dtype was <f4, is <f8"]
    assert changed("new", b"", tmp_path) == ["new: is new"]


def test_a_changed_report_is_found_and_what_is_left_out_is_not(tmp_path):
    report = values()["report"]
    assert changed("report", report | {"seconds": 2.0}, tmp_path) == []
    assert changed("report", report | {"steps": [{"share": 0.5}]}, tmp_path) == [
        "report: /steps/0/share was 0.25, is 0.5"
    ]
    assert changed("report", report | {"out": "/tmp/one/walk"}, tmp_path) == [
        'report: /out was "FOLDER/run", is "FOLDER/walk"'
    ]
    del report["steps"]
    assert changed("report", report, tmp_path) == ["report: /steps is gone"]
