"""A run through a small world: what it writes is what happened."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inspatio_sim.clips.video import read_clip
from inspatio_sim.motion.camera import pose_from
from inspatio_sim.motion.trajectory import parse_tum
from inspatio_sim.walks.walk import OUTPUTS, explore, steps_of_path, steps_of_script
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World


def endpoint(steps) -> np.ndarray:
    T = np.eye(4)
    for step in steps:
        T = T @ step.delta.T_old_new
    return T


def test_a_script_becomes_one_step_a_block_and_arrives_where_it_says():
    steps = steps_of_script("forward 1.0; yaw 90; time freeze; forward 0.5", fps=24, frames_per_block=1)
    T = endpoint(steps)
    np.testing.assert_allclose(T[:3, 3], [-0.5, 0, 1.0], atol=1e-9)  # 0.5 m to the left after the turn
    assert len(steps) == 48 + 72 + 24
    assert [step.clock for step in steps[:120]] == [None] * 120
    assert [step.clock for step in steps[120:]] == ["freeze"] * 24
    in_blocks = steps_of_script("forward 1.0; yaw 90; time freeze; forward 0.5", fps=24, frames_per_block=12)
    assert len(in_blocks) == 4 + 6 + 2
    np.testing.assert_allclose(endpoint(in_blocks), T, atol=1e-9)


@pytest.mark.parametrize("frames_per_block", [1, 3, 100])
def test_a_path_is_walked_to_its_end(frames_per_block):
    path = np.stack([pose_from(t_m=[0.1 * i, 0, 0.2 * i]) for i in range(11)])
    steps = steps_of_path(path, frames_per_block)
    assert len(steps) == math.ceil(10 / frames_per_block)
    np.testing.assert_allclose(endpoint(steps), path[-1], atol=1e-9)


def test_a_path_that_begins_elsewhere_takes_a_step_to_get_there():
    path = np.stack([pose_from(t_m=[0.5, 0, 0]), pose_from(t_m=[0.6, 0, 0])])
    steps = steps_of_path(path, 1)
    np.testing.assert_allclose([step.delta.T_old_new[0, 3] for step in steps], [0.5, 0.1])


def test_a_path_relative_to_the_reference_moves_with_it():
    reference = np.stack([pose_from(t_m=[0, 0, 0.1 * i]) for i in range(5)])
    offset = np.stack([pose_from(t_m=[0.01 * i, 0, 0]) for i in range(8)])  # longer than the reference
    T = endpoint(steps_of_path(offset, 1, reference))
    np.testing.assert_allclose(T[:3, 3], [0.07, 0, 0.4], atol=1e-9)


@pytest.fixture(scope="module")
def run(static_reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    world = World(static_reference, generator="warp", config=WorldConfig(collisions="off"))
    steps = steps_of_script("forward 0.2; right 0.3", static_reference.fps, 1)
    shares = []
    report = explore(world, steps, folder, lambda what, share: shares.append(share))
    return folder, report, steps, shares, world


def test_every_output_but_the_report_is_written(run):
    folder = run[0]
    assert {path.name for path in folder.iterdir()} == set(OUTPUTS) - {"report.json"}


def test_one_frame_a_step_and_one_for_the_start(run, static_reference):
    folder, report, steps, shares, _ = run
    video = read_clip(folder / "observation.mp4")
    assert len(video.frames_u8) == report["num_frames"] == len(steps) + 1
    assert len(read_clip(folder / "side_by_side.mp4").frames_u8) == len(steps) + 1
    assert shares == sorted(shares)
    assert shares[-1] == 1
    error = np.abs(video.frames_u8[0].astype(int) - static_reference.frames_u8[0])
    assert np.median(error) <= 6  # the first view is the clip's own, through a video codec


def test_the_trajectory_ends_where_the_script_does(run):
    folder, report, _, _, _ = run
    times_s, poses = parse_tum((folder / "trajectory.tum").read_text())
    assert len(times_s) == report["num_frames"]
    np.testing.assert_allclose(poses[-1][:3, 3], [0.3, 0, 0.2], atol=1e-6)
    assert report["path_length_m"] == pytest.approx(0.5, abs=1e-3)


def test_the_report_is_json_and_its_numbers_agree(run):
    _, report, _, _, world = run
    assert json.loads(json.dumps(report)) == report
    fraction = report["hallucinated_fraction"]
    assert len(fraction["per_frame"]) == report["num_frames"]
    assert fraction["max"] == pytest.approx(max(fraction["per_frame"]))
    assert fraction["mean"] == pytest.approx(np.mean(fraction["per_frame"]), abs=1e-3)
    assert fraction["per_frame"][0] == 0  # the first view is wholly known
    assert report["map"]["num_points"] == world.map.num_points > 0
    assert report["collisions"] == {"num": 0, "times_s": []}


def test_a_wall_is_reported_as_a_collision(static_reference, tmp_path):
    world = World(static_reference, generator="warp", config=WorldConfig(collisions="stop"))
    steps = steps_of_script("forward 9", static_reference.fps, 6) * 1
    far_steps = [step for step in steps if step.delta.distance_m > 0]
    report = explore(world, far_steps, tmp_path)
    assert report["collisions"]["num"] > 0
    assert report["path_length_m"] < 9
