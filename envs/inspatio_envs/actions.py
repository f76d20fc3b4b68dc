"""Actions of an env: they become a camera motion and, optionally, a clock mode of the clip.

Signs are those of `inspatio_sim.motion.actions`: positive turns left, moves go along the camera's own axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.motion.actions import ActionSizes, DiscreteAction, discrete, six_dof, unicycle
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reference.reference import ClockMode

ActionName = Literal["discrete", "unicycle", "6dof"]

Motion = PoseDelta | Sequence[PoseDelta]
"""The motion of a block: one for all of it, or one per frame."""
Time = ClockMode | Sequence[ClockMode | None] | None
"""The clock mode of a block: one for all of it, or one per frame; None: as the world is configured."""

DISCRETE: tuple[DiscreteAction, ...] = (
    "stop",
    "forward",
    "back",
    "left",
    "right",
    "turn_left",
    "turn_right",
    "look_up",
    "look_down",
)
TIMES: tuple[ClockMode | None, ...] = ("reverse", "freeze", "slow", None)
"""In order of speed; the last one plays as the world is configured."""


class ActionSet(Protocol):
    """An action space and the motions of its actions."""

    @property
    def space(self) -> spaces.Space[Any]:
        """The space of valid actions."""
        ...

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[Motion, Time]:
        """The camera's motion during `duration_s`, and the clock mode; `action` must be in the space."""
        ...

    def is_stop(self, action: NDArray[Any]) -> bool:
        """Whether the action is a stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The velocity that a component of 1 stands for."""

    speed_mps: float = 1.0
    turn_rate_radps: float = 1.5

    def __post_init__(self) -> None:
        for name, most in (("speed_mps", 10.0), ("turn_rate_radps", 2 * math.pi)):
            value = getattr(self, name)
            if not 0 < value <= most:
                raise InputError(f"{name}={value}: want more than 0, at most {most:g}")


class DiscreteActions:
    """`Discrete(9)`: one of `DISCRETE` by number; 0 is stop."""

    def __init__(self, sizes: ActionSizes | None = None) -> None:
        self._motions = [discrete(name, sizes or ActionSizes()) for name in DISCRETE]
        self.space = spaces.Discrete(len(DISCRETE))

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[PoseDelta, None]:
        """A step of fixed size, however long it takes."""
        del duration_s
        return self._motions[int(action)], None

    def is_stop(self, action: NDArray[Any]) -> bool:
        return DISCRETE[int(action)] == "stop"


class UnicycleActions:
    """`Box(-1, 1, (2,))`: forward speed and turn rate, in units of the limits."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.space = spaces.Box(-1, 1, (2,), np.float32)

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[PoseDelta, None]:
        speed, turn = (float(value) for value in action)
        limits = self.limits
        return unicycle(speed * limits.speed_mps, turn * limits.turn_rate_radps, duration_s), None

    def is_stop(self, action: NDArray[Any]) -> bool:
        del action
        return False


class SixDofActions:
    """`Box(-1, 1, (6,))`: velocities vx vy vz wx wy wz in the camera frame (x right, y down, z forward).

    Each is in units of its limit, so the maximum speed is sqrt(3) times `speed_mps`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.space = spaces.Box(-1, 1, (6,), np.float32)

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[PoseDelta, None]:
        linear, angular = action[:3] * self.limits.speed_mps, action[3:] * self.limits.turn_rate_radps
        return six_dof(linear, angular, duration_s), None

    def is_stop(self, action: NDArray[Any]) -> bool:
        del action
        return False


class WithTime:
    """Another action set with one more component for the clock mode (see `TIMES`).

    Discrete: `MultiDiscrete([n, 4])`. Box: one more number in -1..1, cut into four equal bands.
    """

    def __init__(self, base: ActionSet) -> None:
        self.base = base
        if isinstance(base.space, spaces.Discrete):
            self.space = spaces.MultiDiscrete([int(base.space.n), len(TIMES)])
        else:
            self.space = spaces.Box(-1, 1, (_size(base) + 1,), np.float32)

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[Motion, ClockMode | None]:
        motion, _ = self.base.motion(self._own(action), duration_s)
        if isinstance(self.space, spaces.MultiDiscrete):
            return motion, TIMES[int(action[1])]
        band = int((float(action[-1]) + 1) / 2 * len(TIMES))
        return motion, TIMES[min(band, len(TIMES) - 1)]

    def is_stop(self, action: NDArray[Any]) -> bool:
        return self.base.is_stop(self._own(action))

    def _own(self, action: NDArray[Any]) -> NDArray[Any]:
        return action[0] if isinstance(self.space, spaces.MultiDiscrete) else action[:-1]


class PerFrame:
    """One action of another set for every frame of a block.

    Box: `(F, n)`. Discrete: `MultiDiscrete`, frame after frame. It is a stop if any of them is.
    """

    def __init__(self, base: ActionSet, num_frames: int) -> None:
        self.base, self.num_frames = base, num_frames
        if isinstance(base.space, spaces.Box):
            self.space = spaces.Box(-1, 1, (num_frames, _size(base)), np.float32)
        else:
            self.space = spaces.MultiDiscrete(np.tile(_choices(base.space), num_frames))

    def motion(self, action: NDArray[Any], duration_s: float) -> tuple[list[PoseDelta], list[ClockMode | None]]:
        parts = [self.base.motion(part, duration_s / self.num_frames) for part in self._parts(action)]
        return [cast(PoseDelta, motion) for motion, _ in parts], [cast(ClockMode | None, time) for _, time in parts]

    def is_stop(self, action: NDArray[Any]) -> bool:
        return any(self.base.is_stop(part) for part in self._parts(action))

    def _parts(self, action: NDArray[Any]) -> list[NDArray[Any]]:
        parts = action.reshape(self.num_frames, -1)
        return [part[0] if isinstance(self.base.space, spaces.Discrete) else part for part in parts]


def _size(actions: ActionSet) -> int:
    assert actions.space.shape is not None, "a Box has a shape"
    return actions.space.shape[0]


def _choices(space: spaces.Space[Any]) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    assert isinstance(space, spaces.MultiDiscrete), f"{space} counts something"
    return [int(n) for n in space.nvec]


def action_set(
    name: ActionName, options: Mapping[str, float] | None = None, *, time_control: bool = False, num_frames: int = 0
) -> ActionSet:
    """Make an action set.

    Args:
        name: discrete, unicycle or 6dof.
        options: fields of `ActionSizes` (discrete) or `Limits`.
        time_control: the agent also chooses the clock mode.
        num_frames: frames of a block if each has its own action; 0: one action for the whole block.
    """
    if name not in get_args(ActionName):
        raise InputError(f"action={name!r}: want one of {', '.join(get_args(ActionName))}")
    kind = ActionSizes if name == "discrete" else Limits
    options = options or {}
    unknown = sorted(set(options) - set(kind.__dataclass_fields__))
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise InputError(f"action_options has {', '.join(unknown)}: with action={name!r} want some of {known}")
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"action_options[{key!r}]={value!r}: want a number")
    actions: ActionSet
    if name == "discrete":
        actions = DiscreteActions(ActionSizes(**options))
    else:
        actions = (UnicycleActions if name == "unicycle" else SixDofActions)(Limits(**options))
    if time_control:
        actions = WithTime(actions)
    return PerFrame(actions, num_frames) if num_frames else actions


def checked_action(action: object, space: spaces.Space[Any]) -> NDArray[Any]:
    """The action as an array: float64 clipped to -1..1 for a `Box`, int64 otherwise.

    Raises:
        InputError: wrong shape or dtype, NaN, inf, or a number outside the choices.
    """
    shape = space.shape or ()
    try:
        array = np.asarray(action)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in ("iuf" if isinstance(space, spaces.Box) else "iu"):
        want = "numbers" if isinstance(space, spaces.Box) else "whole numbers"
        raise InputError(f"action {_short(action)} is {array.dtype}: want {want} of shape {shape}")
    if array.shape != shape:
        raise InputError(f"action has shape {array.shape}: want {shape}, see env.action_space")
    if isinstance(space, spaces.Box):
        if not np.all(np.isfinite(array)):
            raise InputError(f"action {_short(action)} has NaN or inf: want finite numbers")
        return np.clip(array.astype(np.float64), -1, 1)
    limit = space.n if isinstance(space, spaces.Discrete) else cast(spaces.MultiDiscrete, space).nvec
    if np.any(array < 0) or np.any(array >= limit):
        raise InputError(f"action {_short(action)}: want 0 to {np.asarray(limit).max() - 1}, see env.action_space")
    return array.astype(np.int64)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
