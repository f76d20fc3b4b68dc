"""Scenario files: what they say, and mistakes by file, line and key."""

from __future__ import annotations

import math
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.scenario.model import Discrete, KnownIs, PoseIs, Restore, Script, Time, Twist, Waypoints
from inspatio_sim.scenario.schema import load_scenario


def test_reads_every_action_and_expectation(tmp_path):
    path = tmp_path / "all.scenario.yaml"
    path.write_text(
        """\
name: all of it
description: one of each
world: {video: demo, size_px: [48, 80], frames: 8, camera: turn, seed: 3, clock: slow, slow_factor: 2, collisions: off,
        generator: warp, generator_options: {frames_per_block: 2}, body_radius_m: 0.2, prompt: a room}
pace: {speed_mps: 1, turn_rate_degps: 90}
steps:
  - {script: forward 1; time freeze, mark: one, name: first}
  - discrete: turn_left
  - discrete: {action: forward, times: 3, move_m: 1e-1, turn_deg: 5}
  - twist: {angular_radps: [0, 1, 0], duration_s: 0.5}
  - wait: 0.5
  - time: default
  - waypoints: {through_xz_m: [[1, 2], [0, -1]], unknown: free}
  - reset:
  - snapshot: a
  - restore: a
  - expect:
      - pose: {rotation_deg: [90, 0, 0]}
      - coverage: {min_m2: 1}
      - known: {max: 0.5, source: reference}
      - revisit: {mark: one, min_ssim: 0.5}
      - occupancy: {point_m: [0, 0, 1], state: free}
  - wait: 1
    expect: [collision: false, latency: {max_s: 1}]
""",
        encoding="utf-8",
    )
    scenario = load_scenario(path)
    world, actions = scenario.world, [step.action for step in scenario.steps]
    assert (world.collisions, world.clock, world.slow_factor, world.seed) == ("off", "slow", 2, 3)
    assert world.generator_options == (("frames_per_block", 2),)
    assert scenario.pace.turn_rate_radps == pytest.approx(math.pi / 2)
    assert actions[0] == Script(text="forward 1; time freeze")
    assert scenario.steps[0].title == "first"
    assert isinstance(actions[2], Discrete)
    assert (actions[2].times, actions[2].sizes.move_m) == (3, 0.1)
    assert actions[3] == Twist(linear_mps=(0, 0, 0), angular_radps=(0, 1, 0), duration_s=0.5)
    assert actions[5] == Time(clock=None)
    assert actions[6] == Waypoints(through_xz_m=((1, 2), (0, -1)), is_unknown_free=True)
    assert actions[9] == Restore(name="a")
    looks = [expectation.expected for expectation in scenario.steps[10].expectations]
    assert looks[0] == PoseIs(
        position_m=None, rotation_deg=(90, 0, 0), within_m=0.02, within_deg=1.0, relative_to="world"
    )
    assert looks[2] == KnownIs(min=0.0, max=0.5, source="reference")
    assert [expectation.line for expectation in scenario.steps[10].expectations] == [18, 19, 20, 21, 22]


MISTAKES = [
    ("  - scrpt: forward 1", 3, "steps[0].scrpt: unknown key: did you mean script?"),
    ("  - script: forwrd 1", 3, "steps[0].script: unknown script word 'forwrd'"),
    ("  - script: 5", 3, "steps[0].script: is '5': want a string"),
    ("  - script: forward 1\n    wait: 1", 4, "steps[0].wait: the step has script already"),
    ("  - name: nothing", 3, "steps[0]: nothing to do"),
    ("  - discrete: jmp!", 3, "steps[0].discrete: is 'jmp!'"),
    ("  - discrete: {action: forward, times: 0}", 3, "steps[0].discrete.times: is '0': want a whole number from 1"),
    ("  - discrete: {times: 2}", 3, "steps[0].discrete: no action"),
    ("  - wait: .nan", 3, "steps[0].wait: is '.nan': want a finite number above 0 and at most 600"),
    ("  - wait: -1", 3, "steps[0].wait: is '-1'"),
    ("  - wait: yes", 3, "steps[0].wait: is 'yes'"),
    (
        "  - twist: {linear_mps: [0, 0], duration_s: 1}",
        3,
        "steps[0].twist.linear_mps: is a list of 2: want",
    ),
    ("  - twist: {linear_mps: [0, 0, 50], duration_s: 1}", 3, "steps[0].twist: motion of 50 m in one step"),
    ("  - time: frozen", 3, "steps[0].time: is 'frozen': did you mean freeze? want one of once"),
    ("  - waypoints: {through_xz_m: []}", 3, "steps[0].waypoints.through_xz_m: is empty"),
    ("  - waypoints: {through_xz_m: [[1, a]]}", 3, "steps[0].waypoints.through_xz_m[0][1]: is 'a': want a finite"),
    ("  - restore: a", 3, "steps[0].restore: no earlier snapshot 'a': there is none"),
    ("  - snapshot: a\n  - snapshot: a", 4, "steps[1].snapshot: 'a' is taken"),
    ("  - {wait: 1, mark: a}\n  - {wait: 1, mark: a}", 4, "steps[1].mark: 'a' is taken"),
    ("  - wait: 1\n    wait: 2", 4, "steps[0].wait: appears twice, first in line 3"),
    ("  - wait: 1\n    expect:\n      - pose: {within_m: 1}", 5, "steps[0].expect[0].pose: nothing to compare"),
    ("  - wait: 1\n    expect: [known: {}]", 4, "steps[0].expect[0].known: no bound: want min, max or both"),
    ("  - wait: 1\n    expect: [known: {min: 2}]", 4, "steps[0].expect[0].known.min: is '2'"),
    ("  - wait: 1\n    expect: [coverage: {min_m2: 2, max_m2: 1}]", 4, "is 2, above max_m2 of 1"),
    ("  - wait: 1\n    expect: [revisit: {mark: a, min_ssim: 0}]", 4, "no earlier step is marked 'a'"),
    ("  - wait: 1\n    expect: [image: {file: a.png, min_ssim: 0}]", 4, "a.png: no such file"),
    ("  - wait: 1\n    expect: [image: {file: a.jpg, min_ssim: 0}]", 4, "image.file: is 'a.jpg': want a .png"),
    ("  - wait: 1\n    expect: [occupancy: {point_m: [0, 0, 0]}]", 4, "occupancy: no state"),
    ("  - wait: 1\n    expect: [collision: maybe]", 4, "collision: is 'maybe': want true or false"),
    ("  - wait: 1\n    expect: {collision: true}", 4, "steps[0].expect: is a mapping: want a list"),
    ("  - wait: 1\n    expect:\n      - collision: true\n        known: {min: 1}", 5, "has collision, known: want one"),
    ("  - time: freeze\n    expect: [collision: false]", 4, "nothing moves in this step"),
    ("  - snapshot: a\n    expect: [latency: {max_s: 1}]", 4, "this step makes no frames"),
    ("  - &x {wait: 1}\n  - *x", 4, "*x: aliases are not supported"),
    ("  - script: !!python/object/apply:os.system ['true']", 3, "steps[0].script: is a list of 1: want a string"),
    ("  - wait: !!python/name:os.system 1", 3, "steps[0].wait: is tagged tag:yaml.org,2002:python/name"),
    ("  - wait: [1", 4, "not valid YAML"),
    ("  []", 3, "steps: is empty: want at least one step"),
]


@pytest.mark.parametrize(("steps", "line", "part"), MISTAKES)
def test_mistakes_name_file_line_and_key(write, steps, line, part):
    path = write(steps)
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert part in message
    assert "\n" not in message


WORLD_MISTAKES = [
    ("video: nowhere.mp4", "world.video: "),
    ("size_px: [48]", "world.size_px: is a list of 1: want height and width"),
    ("size_px: [48, 8]", "world.size_px[1]: is '8': want a whole number from 16"),
    ("generator: wrap", "world.generator: is 'wrap': did you mean warp?"),
    ("generator_options: {a: {b: 1}}", "world.generator_options.a: is a mapping"),
    ("collisions: bounce", "world.collisions: is 'bounce'"),
    ("body_radius_m: 0", "world.body_radius_m: is '0': want a finite number above 0"),
    ("seed: -1", "world.seed: is '-1'"),
    ("method: sfm", "world.method: the demo clip comes with depth"),
    ("start_frame: 3", "world.start_frame: the demo clip is made as long as asked"),
    ("colour: red", "world.colour: unknown key"),
]


@pytest.mark.parametrize(("entry", "part"), WORLD_MISTAKES)
def test_mistakes_in_the_world(tmp_path, entry, part):
    path = tmp_path / "a.scenario.yaml"
    path.write_text(f"steps:\n  - wait: 1\nworld:\n  {entry}\n", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(f"{path}:4: {part}")):
        load_scenario(path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"# nothing\n", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: \x00", "not valid YAML"),
        (b"[" * 500_000, "want at most 20"),
        (b"- a", "want a mapping of name"),
        (b"name: a", "no steps"),
        (b" " * 1_000_001, "want a scenario of at most"),
    ],
)
def test_files_that_are_no_scenarios(tmp_path, content, part):
    path = tmp_path / "a.scenario.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=part) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_scenario(tmp_path / "none.scenario.yaml")
    os.mkdir(tmp_path / "folder.scenario.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load_scenario(tmp_path / "folder.scenario.yaml")


WORDS = st.sampled_from(["steps", "wait", "script", "expect", "pose", "- ", ": ", "\n", "  ", "{", "}", "[", "]", "1"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=30).map("".join)))
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    path = tmp_path / "any.scenario.yaml"
    path.write_text(f"steps:\n  - {text}\n", encoding="utf-8", errors="replace")
    try:
        load_scenario(path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
