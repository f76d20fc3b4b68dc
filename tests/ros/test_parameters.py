"""The table of parameters: what it allows, what it says, and what becomes of it. No ROS."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from inspatio_ros.driving import DriveConfig
from inspatio_ros.loading import load_generator, load_world
from inspatio_ros.parameters import BY_NAME, TABLE, Parameters, default_text, help_text, markdown_table, unknown_names
from inspatio_ros.simulation import Settings

from inspatio_sim.errors import InputError


def silent(what: str, share_done: float) -> None:
    pass


def test_defaults_are_allowed_and_described():
    values = Parameters()
    for row in TABLE:
        assert row.checked(getattr(values, row.name)) == row.default
        assert row.about
        assert not row.about.endswith(".")
        if isinstance(row.default, (int, float)) and not isinstance(row.default, bool):
            assert row.low is not None, f"{row.name} has no range"


def test_numbers_have_a_unit_that_their_names_say():
    endings = {"_s": "s", "_m": "m", "_px": "px", "_mps": "m/s", "_rad": "rad", "_radps": "rad/s"}
    for row in TABLE:
        for ending, unit in endings.items():
            if row.name.endswith(ending):
                assert row.unit == unit, row.name


def test_defaults_are_those_of_the_parts_they_go_to():
    values = Parameters()
    for config in (DriveConfig(), Settings()):
        for field in fields(config):
            if field.name in BY_NAME:
                assert getattr(values, field.name) == getattr(config, field.name), field.name


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("max_speed_mps", 100.0, "max_speed_mps=100.0: want 0.01 to 5 m/s"),
        ("max_speed_mps", math.nan, "want 0.01 to 5 m/s"),
        ("max_speed_mps", "fast", "max_speed_mps='fast': want"),
        ("seed", 1.5, "seed=1.5: want a whole number 0 to"),
        ("seed", True, "seed=True: want"),
        ("autostart", 1, "autostart=1: want true or false"),
        ("time_mode", "slow", "want one of real_time, as_fast_as_possible, lock_step"),
        ("generator_options", "[1]", "want a YAML mapping"),
        ("generator_options", "{a: ", "not YAML"),
        ("step_height_m", 1.0, None),
    ],
)
def test_mistakes_are_named(name, value, complaint):
    if complaint is None:
        assert Parameters(**{name: value}) is not None
        with pytest.raises(InputError, match="step_height_m=1.0: want it below robot_height_m=0.5"):
            Parameters(**{name: value, "robot_height_m": 0.5})
        return
    with pytest.raises(InputError) as caught:
        Parameters(**{name: value})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_do_for_doubles():
    assert Parameters(max_speed_mps=1).max_speed_mps == 1.0


def test_misspelt_names_are_guessed():
    [line] = unknown_names(["max_sped_mps", "video"])
    assert line == "unknown parameter 'max_sped_mps': did you mean 'max_speed_mps'?"


def test_tables_have_every_parameter():
    for row in TABLE:
        assert f"| `{row.name}` | {row.type_name} | `{default_text(row)}` |" in markdown_table()
        assert f"  {row.name}" in help_text()


def test_block_frames_in_the_words_of_the_generator():
    generator = load_generator(Parameters(generator="warp", block_frames=5), None, silent)
    assert generator.frames_per_block == 5
    with pytest.raises(InputError, match="block_frames=5: want a multiple of 4 with star"):
        load_generator(Parameters(generator="star", block_frames=5), None, silent)
    with pytest.raises(InputError, match="block_frames=2: want 1 with frame"):
        load_generator(Parameters(generator="frame", block_frames=2), None, silent)
    asked = Parameters(generator="frame", block_frames=1, generator_options="{random_weights: true, max_views: 8}")
    generator = load_generator(asked, None, silent)
    assert (generator.frames_per_block, generator.options["max_views"]) == (1, 8)


def test_world_of_the_demo_room():
    asked = Parameters(generator="warp", height_px=48, width_px=80, max_frames=3, fps=6.0, seed=7, collisions="stop")
    world, source = load_world(asked, silent)
    assert world.reference.frames_u8.shape == (3, 48, 80, 3)
    assert (world.reference.fps, world.seed, world.config.collisions) == (6.0, 7, "stop")
    assert source.paths == ()
    with pytest.raises(InputError, match="height_px=48, width_px=0: want both"):
        load_world(Parameters(generator="warp", height_px=48), silent)
    with pytest.raises(InputError, match="/nowhere.mp4"):
        load_world(Parameters(generator="warp", video="/nowhere.mp4"), silent)
    with pytest.raises(InputError, match="reconstruct option nothing=1: no option of method auto"):
        load_world(Parameters(generator="warp", reconstruct_options="{nothing: 1}"), silent)


def test_saved_reconstruction_is_a_world(tmp_path):
    world, _ = load_world(Parameters(generator="warp", height_px=48, width_px=80, max_frames=3), silent)
    world.reference.save(tmp_path / "room")
    again, _ = load_world(Parameters(generator="warp", video=str(tmp_path / "room")), silent)
    assert again.reference.fingerprint() == world.reference.fingerprint()
    with pytest.raises(InputError, match="is 48 x 80 px: want this size, or 0"):
        load_world(Parameters(generator="warp", video=str(tmp_path / "room"), height_px=96, width_px=160), silent)
