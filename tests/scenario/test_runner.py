"""Scenarios, played: each expectation can come true and can fail, and nothing depends on luck."""

from __future__ import annotations

import numpy as np
import pytest

from inspatio_sim.pictures import save_png
from inspatio_sim.scenario.report import summary
from inspatio_sim.scenario.runner import run_scenario
from inspatio_sim.scenario.schema import load_scenario


def verdicts(result) -> list[bool]:
    return [verdict.passed for step in result.steps for verdict in step.verdicts]


def test_poses_of_all_kinds_of_motion(play):
    result = play(
        """\
  - script: forward 0.2; yaw 90; forward 0.1
    expect:
      - pose: {position_m: [-0.1, 0, 0.2], rotation_deg: [90, 0, 0], within_m: 1e-6, within_deg: 1e-4}
      - pose: {position_m: [-0.1, 0, 0.25], within_m: 0.04}
      - pose: {rotation_deg: [80, 0, 0], within_deg: 9}
  - reset: {position_m: [0.3, 0, 0], rotation_deg: [-90, 0, 0]}
  - discrete: {action: forward, times: 2, move_m: 0.1}
    expect:
      - pose: {position_m: [0.5, 0, 0], within_m: 1e-6}
      - pose: {position_m: [0, 0, 0.2], rotation_deg: [0, 0, 0], relative_to: start, within_m: 1e-6}
  - twist: {linear_mps: [0, -0.2, 0], duration_s: 0.5}
    expect:
      - pose: {position_m: [0.5, -0.1, 0], within_m: 1e-6}
  - script: pitch 20; roll 10
    expect:
      - pose: {rotation_deg: [-90, 20, 10], within_deg: 1e-4}"""
    )
    assert verdicts(result) == [True, False, False, True, True, True, True]
    assert result.status == "failed"
    assert [step.status for step in result.steps] == ["failed", "passed", "passed", "passed", "passed"]
    assert "0.050 m off" in result.failures[0]
    assert "made.scenario.yaml:6: forward 0.2" in result.failures[0]


def test_collisions_known_pixels_and_map(play):
    result = play(
        """\
  - expect:
      - known: {min: 0.9}
      - known: {max: 0.5}
      - occupancy: {point_m: [0, 0, 2], state: free}
      - occupancy: {point_m: [0, 0, 2], state: occupied}
      - occupancy: {point_m: [0, 0, -1.5], state: unknown}
      - coverage: {min_m2: 1, max_m2: 20}
      - coverage: {max_m2: 1}
  - script: back 0.2
    expect:
      - collision: false
      - collision: true
  - script: forward 5
    expect:
      - collision: true
  - reset:
  - script: yaw 180
    expect:
      - known: {max: 0.2}
      - coverage: {min_m2: 30, source: any}
      - coverage: {max_m2: 20, source: filmed}""",
        world=", collisions: stop",
    )
    expected = [True, False, True, False, True, True, False]
    assert verdicts(result) == [*expected, True, False, True, True, True, True]


def test_frozen_time_and_restored_worlds_repeat_themselves(play):
    result = play(
        """\
  - {time: freeze, mark: start}
  - {wait: 0.5, expect: [revisit: {mark: start, min_psnr_db: 100, min_ssim: 1}]}
  - snapshot: fork
  - {script: yaw 30; time loop; wait 0.25, mark: end}
  - {wait: 0.1, expect: [revisit: {mark: start, min_psnr_db: 40}]}
  - restore: fork
  - expect: [pose: {position_m: [0, 0, 0], rotation_deg: [0, 0, 0], within_m: 0, within_deg: 0}]
  - {wait: 0.25, expect: [revisit: {mark: start, min_psnr_db: 100}]}
  - restore: fork
  - {script: yaw 30; time loop; wait 0.25, expect: [revisit: {mark: end, min_psnr_db: 100}]}"""
    )
    assert verdicts(result) == [True, False, True, True, True]


def test_latency_is_bounded_and_always_told(play):
    result = play("  - {wait: 0.2, expect: [latency: {max_s: 100}]}\n  - {wait: 0.2, expect: [latency: {max_s: 1e-9}]}")
    assert verdicts(result) == [True, False]
    told = summary([result])["timings_s"][str(result.scenario.file)]["steps"]
    assert len(told) == 2
    assert all(0 < step["slowest_block"] <= step["all"] for step in told)


def test_image_against_a_file(write, maker, tmp_path):
    path = write("  - script: yaw 20\n    expect: [image: {file: pictures/there.png, min_psnr_db: 40, min_ssim: 0.95}]")
    written = run_scenario(load_scenario(path, needs_images=False), maker, updates_images=True)
    again = run_scenario(load_scenario(path), maker)
    assert written.status == again.status == "passed"
    assert again.steps[0].verdicts[0].measured == "PSNR 100.00 dB, SSIM 1.0000 to there.png"

    save_png(tmp_path / "pictures" / "there.png", np.zeros((48, 80, 3), np.uint8))
    black = run_scenario(load_scenario(path), maker).steps[0].verdicts[0]
    assert not black.passed
    assert set(black.pictures) == {"frame", "wanted: there.png", "difference"}
    np.testing.assert_array_equal(black.pictures["difference"], black.pictures["frame"])

    save_png(tmp_path / "pictures" / "there.png", np.zeros((48, 64, 3), np.uint8))
    other_size = run_scenario(load_scenario(path), maker)
    assert "48x80 against 48x64 px" in other_size.failures[0]


def test_the_same_scenario_gives_the_same_result(play):
    steps = """\
  - {script: yaw 25; forward 0.3; right 3, mark: a, expect: [known: {min: 0.99}, collision: false]}
  - {discrete: back, expect: [revisit: {mark: a, min_psnr_db: 99}, coverage: {max_m2: 0.1}]}"""
    first, second = (play(steps, world=", generator_options: {frames_per_block: 3}, seed: 5") for _ in range(2))
    assert first == second
    told = [summary([result]) for result in (first, second)]
    for report in told:
        del report["timings_s"]
    assert told[0] == told[1]
    assert first.num_frames % 3 == 0


def test_a_step_that_cannot_be_done_ends_the_scenario(play):
    result = play("  - wait: 0.1\n  - waypoints: {through_xz_m: [[0, -1.5]]}\n  - wait: 0.1")
    assert [step.status for step in result.steps] == ["passed", "failed", "skipped"]
    assert result.status == "failed"
    assert "made.scenario.yaml:4: go to (0, -1.5): no path to x = 0.00, z = -1.50 m" in result.failures[0]
    assert set(result.steps[1].pictures) == {"frame", "map and path, from above"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("generator_options: {frames_per_block: many}", "frames_per_block=many"),
        ("generator_options: {colour: red}", "generator 'warp' has no option colour"),
    ],
)
def test_a_world_that_cannot_be_made_is_an_error(play, options, part):
    result = play("  - wait: 0.1\n  - wait: 0.2", world=f", {options}")
    assert result.status == "error"
    assert [step.status for step in result.steps] == ["skipped", "skipped"]
    assert result.message.startswith(f"{result.scenario.file}:1: world: ")
    assert part in result.message


def test_a_clip_of_ones_own(tmp_path, write, maker):
    from inspatio_sim.scenes.demo import write_demo_clip

    write_demo_clip(tmp_path / "room", num_frames=3, size_px=(48, 80), camera="static")
    path = tmp_path / "own.scenario.yaml"
    path.write_text(
        "world: {video: room, size_px: [48, 80]}\nsteps:\n  - {wait: 0.2, expect: [known: {min: 0.9}]}\n",
        encoding="utf-8",
    )
    result = run_scenario(load_scenario(path), maker)
    assert result.status == "passed", result.failures
