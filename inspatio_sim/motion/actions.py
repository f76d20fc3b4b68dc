"""Actions as camera motions: discrete actions, unicycle, 6-DoF, and the script language.

Signs follow REP-103 where it has one: positive yaw turns left (counter-clockwise seen from above) and
positive roll leans right. Positive pitch looks up, as in everyday use (in REP-103 it would look down).
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import MAX_STEP_M, PoseDelta
from inspatio_sim.reference.reference import ClockMode

DiscreteAction = Literal[
    "stop",
    "forward",
    "back",
    "left",
    "right",
    "up",
    "down",
    "turn_left",
    "turn_right",
    "look_up",
    "look_down",
    "roll_left",
    "roll_right",
]

MAX_WORD_DEG = 360.0
MAX_WAIT_S = 600.0

# Unit twists in the camera frame (x right, y down, z forward): what one metre or one radian of each is.
_MOVES = {
    "forward": (0, 0, 1, 0, 0, 0),
    "back": (0, 0, -1, 0, 0, 0),
    "left": (-1, 0, 0, 0, 0, 0),
    "right": (1, 0, 0, 0, 0, 0),
    "up": (0, -1, 0, 0, 0, 0),
    "down": (0, 1, 0, 0, 0, 0),
}
_TURNS = {
    "yaw": (0, 0, 0, 0, -1, 0),
    "pitch": (0, 0, 0, 1, 0, 0),
    "roll": (0, 0, 0, 0, 0, 1),
}
_DISCRETE_TURNS = {
    "turn_left": ("yaw", 1),
    "turn_right": ("yaw", -1),
    "look_up": ("pitch", 1),
    "look_down": ("pitch", -1),
    "roll_left": ("roll", -1),
    "roll_right": ("roll", 1),
}
SCRIPT_WORDS = (*_MOVES, *_TURNS, "wait", "time")


@dataclass(frozen=True, kw_only=True)
class ActionSizes:
    """How far one discrete action goes."""

    move_m: float = 0.25
    turn_rad: float = math.radians(15)

    def __post_init__(self) -> None:
        if not 0 < self.move_m <= MAX_STEP_M:
            raise InputError(f"move_m={self.move_m}: want more than 0, at most {MAX_STEP_M:g} m")
        if not 0 < self.turn_rad <= math.pi:
            raise InputError(f"turn_rad={self.turn_rad}: want more than 0, at most pi")


def discrete(action: DiscreteAction, sizes: ActionSizes | None = None) -> PoseDelta:
    """One named action of fixed size."""
    sizes = sizes or ActionSizes()
    if action == "stop":
        return PoseDelta.identity()
    if action in _MOVES:
        return PoseDelta(sizes.move_m * np.array(_MOVES[action]))
    if action in _DISCRETE_TURNS:
        axis, sign = _DISCRETE_TURNS[action]
        return PoseDelta(sign * sizes.turn_rad * np.array(_TURNS[axis]))
    raise InputError(_unknown("action", action, get_args(DiscreteAction)))


def unicycle(speed_mps: float, turn_rate_radps: float, duration_s: float) -> PoseDelta:
    """Drive forward and turn at once, along an arc. A positive turn rate turns left, as in ROS."""
    return PoseDelta.from_twist((0, 0, speed_mps), (0, -turn_rate_radps, 0), duration_s)


def six_dof(linear_mps: ArrayLike, angular_radps: ArrayLike, duration_s: float) -> PoseDelta:
    """Velocities (vx, vy, vz) and (wx, wy, wz) in the camera frame: x right, y down, z forward."""
    return PoseDelta.from_twist(linear_mps, angular_radps, duration_s)


@dataclass(frozen=True, kw_only=True)
class ScriptConfig:
    """How quickly a script is played."""

    fps: float = 24.0
    speed_mps: float = 0.5
    turn_rate_radps: float = math.radians(30)

    def __post_init__(self) -> None:
        for name in ("fps", "speed_mps", "turn_rate_radps"):
            value = getattr(self, name)
            if not 0.001 <= value <= 1000:
                raise InputError(f"{name}={value}: want 0.001 to 1000")


@dataclass(frozen=True, kw_only=True)
class ScriptStep:
    """One word of a script."""

    text: str  # as it was written
    delta: PoseDelta  # the whole motion of this word
    num_frames: int  # frames of the motion; 0 for `time`
    clock: ClockMode | None = None  # new mode of the reference's clock


def parse_script(text: str, config: ScriptConfig | None = None) -> list[ScriptStep]:
    """Read a script such as `forward 0.3; yaw 20; wait 5; time freeze`.

    Args:
        text: words separated by `;` or line ends: `forward back left right up down` with metres,
            `yaw pitch roll` with degrees (positive: turn left, look up, lean right), `wait` with
            seconds, `time` with a clock mode.
        config: speeds and frame rate, which give the number of frames of each word.

    Returns:
        The steps, at least one.

    Raises:
        InputError: an unknown word, a missing or absurd amount, an empty script.
    """
    config = config or ScriptConfig()
    words = [" ".join(part.split()) for part in re.split(r"[;\n\r]", text)]
    steps = [_parse_word(word, config) for word in words if word]
    if not steps:
        raise InputError('script is empty: want words such as "forward 0.3; yaw 20"')
    return steps


def _parse_word(text: str, config: ScriptConfig) -> ScriptStep:
    word, *arguments = text.split(" ")
    word = word.lower()
    if word not in SCRIPT_WORDS:
        raise InputError(_unknown("script word", word, SCRIPT_WORDS))
    if len(arguments) != 1:
        example = {"time": "time freeze", "wait": "wait 2"}.get(word, f"{word} {0.5 if word in _MOVES else 20}")
        raise InputError(f'script word {_short(text)} has {len(arguments)} arguments: want one, as in "{example}"')
    argument = arguments[0].lower()
    if word == "time":
        if argument not in get_args(ClockMode):
            raise InputError(_unknown("clock mode", argument, get_args(ClockMode)))
        clock = cast(ClockMode, argument)
        return ScriptStep(text=text, delta=PoseDelta.identity(), num_frames=0, clock=clock)

    amount = _number(text, argument)
    if word == "wait":
        if not 0 < amount <= MAX_WAIT_S:
            raise InputError(f"script word {_short(text)}: want more than 0, at most {MAX_WAIT_S:g} s")
        return ScriptStep(text=text, delta=PoseDelta.identity(), num_frames=_frames(amount, config))
    if word in _MOVES:
        if abs(amount) > MAX_STEP_M:
            raise InputError(f"script word {_short(text)}: want at most {MAX_STEP_M:g} m in one word")
        delta = PoseDelta(amount * np.array(_MOVES[word]))
        return ScriptStep(text=text, delta=delta, num_frames=_frames(abs(amount) / config.speed_mps, config))
    if abs(amount) > MAX_WORD_DEG:
        raise InputError(f"script word {_short(text)}: want at most {MAX_WORD_DEG:g} degrees in one word")
    angle_rad = math.radians(amount)
    delta = PoseDelta(angle_rad * np.array(_TURNS[word]))
    return ScriptStep(text=text, delta=delta, num_frames=_frames(abs(angle_rad) / config.turn_rate_radps, config))


def _number(text: str, argument: str) -> float:
    try:
        value = float(argument)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"script word {_short(text)}: want a finite number")
    return value


def _frames(duration_s: float, config: ScriptConfig) -> int:
    return max(1, math.ceil(duration_s * config.fps - 1e-6))


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name[:40], known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {_short(name)}: {hint}known are {', '.join(known)}"


def _short(text: str) -> str:
    """Quoted, on one line, and no longer than a line."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
