"""Wrappers: limits and penalties for made-up pixels, and more observations."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from inspatio_envs.env import InspatioEnv, left_trust
from inspatio_envs.spaces import ObservationName, observation_space
from inspatio_sim.errors import InputError

Observations = dict[str, NDArray[Any]]
Wrapper = gymnasium.Wrapper[Observations, Any, Observations, Any]


class HallucinationPenalty(Wrapper, RecordConstructorArgs):
    """Subtracts `weight * hallucinated_fraction` from the reward of every step."""

    def __init__(self, env: gymnasium.Env[Observations, Any], weight: float = 0.1) -> None:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < np.inf:
            raise InputError(f"weight={weight!r}: want a number, 0 or more")
        RecordConstructorArgs.__init__(self, weight=weight)
        super().__init__(env)
        self.weight = weight

    def step(self, action: Any) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward) - self.weight * info["hallucinated_fraction"]
        return observation, reward, terminated, truncated, info


class TrustHorizon(Wrapper, RecordConstructorArgs):
    """Truncates when too much is made up for `patience` steps in a row; `info["left_trust"]` says which limit.

    Args:
        env: an env of this package.
        max_hallucinated_fraction: limit for a step's pixels; None: no limit.
        max_drift: limit for the mean difference between frame and geometry, 0..1; None: no limit.
        patience: number of steps in a row over a limit.
    """

    def __init__(
        self,
        env: gymnasium.Env[Observations, Any],
        max_hallucinated_fraction: float | None = 0.8,
        max_drift: float | None = None,
        patience: int = 1,
    ) -> None:
        for name, limit in (("max_hallucinated_fraction", max_hallucinated_fraction), ("max_drift", max_drift)):
            if limit is not None and not 0 <= limit <= 1:
                raise InputError(f"{name}={limit!r}: want 0 to 1, or None")
        if type(patience) is not int or patience < 1:
            raise InputError(f"patience={patience!r}: want a whole number of at least 1")
        RecordConstructorArgs.__init__(
            self, max_hallucinated_fraction=max_hallucinated_fraction, max_drift=max_drift, patience=patience
        )
        super().__init__(env)
        self.max_hallucinated_fraction, self.max_drift = max_hallucinated_fraction, max_drift
        self.patience = patience
        self._num_over = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        self._num_over = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        fraction, drift = info["hallucinated_fraction"], info["drift"]
        reason = left_trust(fraction, drift, self.max_hallucinated_fraction, self.max_drift)
        self._num_over = self._num_over + 1 if reason else 0
        if self._num_over >= self.patience:
            truncated, info = True, info | {"left_trust": reason}
        return observation, float(reward), terminated, truncated, info


class _With(gymnasium.ObservationWrapper[Observations, Any, Observations]):
    """Adds one observation."""

    name: ObservationName

    def __init__(self, env: gymnasium.Env[Observations, Any]) -> None:
        super().__init__(env)
        inner, config = self._inner, self._inner.config
        if self.name in ("goal", "goal_image") and self.name not in inner.task.shows:
            raise InputError(f"{type(self).__name__}: the task {config.task!r} has no {self.name}")
        own = observation_space((self.name,), config.size_px, config.grid_cells, config.layout)
        before = env.observation_space
        assert isinstance(before, spaces.Dict), "this package's spaces are Dicts"
        both = spaces.Dict({**before.spaces, **own.spaces})
        self.observation_space = cast(spaces.Space[Observations], both)

    def observation(self, observation: Observations) -> Observations:
        return {**observation, self.name: self._inner.observe_as(self.name)}

    @property
    def _inner(self) -> InspatioEnv:
        if not isinstance(self.unwrapped, InspatioEnv):
            raise InputError(
                f"{type(self).__name__}: the env is a {type(self.unwrapped).__name__}: want an InspatioEnv"
            )
        return cast(InspatioEnv, self.unwrapped)


class GridObservation(_With, RecordConstructorArgs):
    """Adds `grid`, the floor plan around the agent (see `inspatio_envs.spaces`)."""

    name: ObservationName = "grid"

    def __init__(self, env: gymnasium.Env[Observations, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)


class GoalImage(_With, RecordConstructorArgs):
    """Adds `goal_image`, what the camera would see at the goal."""

    name: ObservationName = "goal_image"

    def __init__(self, env: gymnasium.Env[Observations, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
