import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.motion.actions import (
    SCRIPT_WORDS,
    ActionSizes,
    ScriptConfig,
    discrete,
    parse_script,
    six_dof,
    unicycle,
)
from inspatio_sim.motion.camera import interpolate

SIZES = ActionSizes(move_m=0.5, turn_rad=0.2)
FORWARD, UP, LEFT = np.array([0, 0, 1.0]), np.array([0, -1.0, 0]), np.array([-1.0, 0, 0])


def test_moves_go_where_they_say():
    moves = {"forward": FORWARD, "back": -FORWARD, "left": LEFT, "right": -LEFT, "up": UP, "down": -UP}
    for action, direction in moves.items():
        T = discrete(action, SIZES).T_old_new
        assert np.allclose(T[:3, 3], 0.5 * direction), action
        assert np.allclose(T[:3, :3], np.eye(3)), action


def test_turns_look_where_they_say():
    turns = {"turn_left": LEFT, "turn_right": -LEFT, "look_up": UP, "look_down": -UP}
    for action, direction in turns.items():
        T = discrete(action, SIZES).T_old_new
        assert np.allclose(T[:3, 2], np.cos(0.2) * FORWARD + np.sin(0.2) * direction), action
        assert np.allclose(T[:3, 3], 0), action


def test_rolling_right_lowers_the_right_side():
    right_side = discrete("roll_right", SIZES).T_old_new[:3, 0]
    assert right_side[1] == pytest.approx(np.sin(0.2))  # y points down
    assert np.allclose(discrete("roll_left", SIZES).T_old_new, discrete("roll_right", SIZES).inverse().T_old_new)


def test_stop_and_unknown_actions():
    assert np.array_equal(discrete("stop").T_old_new, np.eye(4))
    with pytest.raises(InputError, match="did you mean 'turn_left'"):
        discrete("turn_lefft")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("sizes", [{"move_m": 0.0}, {"move_m": np.nan}, {"move_m": 11.0}, {"turn_rad": 4.0}])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(InputError, match=next(iter(sizes))):
        ActionSizes(**sizes)


def test_unicycle_turns_left_along_a_circle():
    # 2 m/s with 1 rad/s: a circle of 2 m radius around a point on the left.
    frames = interpolate(np.eye(4), unicycle(2.0, 1.0, 1.5), 6)
    assert np.allclose(np.linalg.norm(frames[:, :3, 3] - 2 * LEFT, axis=1), 2.0)
    assert frames[-1, 0, 3] < 0
    assert np.allclose(frames[-1, :3, 2], np.cos(1.5) * FORWARD + np.sin(1.5) * LEFT)


def test_six_dof_takes_camera_axes():
    assert np.allclose(six_dof([1, 2, 3], [0, 0, 0], 0.5).T_old_new[:3, 3], [0.5, 1, 1.5])


@pytest.mark.parametrize("arguments", [(np.nan, 0, 1), (0, np.inf, 1), (1, 0, np.nan), (100, 0, 1), (0, 7, 1)])
def test_absurd_actions_are_refused(arguments):
    with pytest.raises(InputError):
        unicycle(*arguments)


# The script language


def test_a_script_is_read():
    config = ScriptConfig(fps=10, speed_mps=0.5, turn_rate_radps=np.radians(20))
    steps = parse_script("forward 0.3; yaw 20; yaw -40; BACK 0.3;\n wait 5; time freeze;", config)
    assert [step.text for step in steps] == [
        "forward 0.3",
        "yaw 20",
        "yaw -40",
        "BACK 0.3",
        "wait 5",
        "time freeze",
    ]
    assert [step.num_frames for step in steps] == [6, 10, 20, 6, 50, 0]
    assert [step.clock for step in steps] == [None] * 5 + ["freeze"]
    assert np.allclose(steps[0].delta.T_old_new[:3, 3], 0.3 * FORWARD)
    assert np.allclose(steps[1].delta.T_old_new[:3, 2], np.cos(np.pi / 9) * FORWARD + np.sin(np.pi / 9) * LEFT)
    assert np.allclose(steps[4].delta.T_old_new, np.eye(4))


def test_pitch_looks_up_and_roll_leans_right():
    pitch, roll = parse_script("pitch 30; roll 30")
    assert np.allclose(pitch.delta.T_old_new[:3, 2], np.cos(np.pi / 6) * FORWARD + 0.5 * UP)
    assert roll.delta.T_old_new[1, 0] == pytest.approx(0.5)


def test_a_whole_turn_is_one_word():
    (step,) = parse_script("yaw 360")
    assert step.delta.angle_rad == pytest.approx(2 * np.pi)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "script is empty"),
        (" ; \n;", "script is empty"),
        ("fowrard 1", "did you mean 'forward'.*known are forward, back"),
        ("xyzzy 1", "unknown script word 'xyzzy': known are"),
        ("forward", 'want one, as in "forward 0.5"'),
        ("yaw", 'want one, as in "yaw 20"'),
        ("forward 1 2", "2 arguments"),
        ("forward one", "want a finite number"),
        ("forward nan", "want a finite number"),
        ("yaw inf", "want a finite number"),
        ("forward 10.1", "at most 10 m"),
        ("yaw -361", "at most 360 degrees"),
        ("wait -1", "more than 0"),
        ("wait 1e9", "at most 600 s"),
        ("time frezee", "did you mean 'freeze'"),
        ("time", 'as in "time freeze"'),
        ("x" * 10_000 + " 1", "unknown script word 'xxx"),
    ],
)
def test_bad_scripts_are_refused_in_one_short_line(script, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_script(script)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@settings(deadline=None)
@given(
    st.text()
    | st.lists(
        st.tuples(st.sampled_from(SCRIPT_WORDS) | st.text(), st.text() | st.floats().map(str) | st.just("loop")).map(
            " ".join
        )
    ).map(";".join)
)
def test_the_parser_reads_or_refuses(script):
    try:
        steps = parse_script(script)
    except InputError:
        return
    assert steps
    assert all(step.num_frames >= 1 or step.clock for step in steps)
    assert all(np.all(np.isfinite(step.delta.T_old_new)) for step in steps)


@pytest.mark.parametrize("name", ["fps", "speed_mps", "turn_rate_radps"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-300])
def test_bad_script_speeds_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        ScriptConfig(**{name: value})
