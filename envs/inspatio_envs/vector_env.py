"""Many worlds as one env: all of them share one call of the generator per block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from inspatio_envs.actions import checked_action
from inspatio_envs.env import Answer, InspatioEnv
from inspatio_envs.workers import Workers, check_num_workers
from inspatio_sim.errors import InputError
from inspatio_sim.world.world import reset_worlds, step_worlds

Observations = dict[str, NDArray[Any]]
StepResult = tuple[Observations, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SlotStep:
    """The result of `InspatioEnv.step` for one slot; with SAME_STEP it may belong to the next episode."""

    observation: Observations
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    last: Answer | None = None  # last observation and info of the old episode if a new one began


class InspatioVectorEnv(VectorEnv[Observations, Any, NDArray[Any]]):
    """N envs in N slots that step together; clips, tasks and seeds may differ.

    Each slot behaves like an `InspatioEnv` with the same arguments and seed: bit-exact with `warp`, up to rounding with
    a network (see `inspatio_sim.world.world.step_worlds`). All slots have the same
    spaces. Slots with the same generator, preset and generator options share one call of it.

    Example:
        envs = gymnasium.make_vec("inspatio_envs:inspatio/PointNav-v0", num_envs=4, generator="warp")
        envs = gymnasium.make_vec(
            "inspatio_envs:inspatio/PointNav-v0", num_envs=2, slots=[{"video": "a.mp4"}, {"video": "b.mp4"}]
        )

    When an episode ends, the autoreset modes work as in Gymnasium's own vector envs:

    - NEXT_STEP: the next `step` resets the slot; it ignores the slot's action, the reward is 0.
    - SAME_STEP: the same `step` resets the slot and shows the new episode; the last observation and info are in
      `infos["final_obs"]` and `infos["final_info"]`.
    - DISABLED: the slot waits for `reset(options={"reset_mask": mask})`, mask a bool array with one entry per slot.

    `reset` takes one seed (slot i gets seed + i), a list of them, or None: each slot's random stream continues. The
    options `reset_mask` and `slots` (a list with the options of each slot, or None) belong to the vector env;
    the others, and those in `slots`, go to `InspatioEnv.reset`.

    Args:
        num_envs: number of slots; None: the length of `slots`, or 1.
        slots: for each slot, the arguments that differ from `options`.
        num_workers: number of processes that the slots are spread over; 0: all slots step in this process. With `warp`
            one per core is fastest; with a network 0 is, since slots share calls and weights. A script that uses
            workers must be importable: keep its code under `if __name__ == "__main__":`.
        autoreset_mode: one of `gymnasium.vector.AutoresetMode`, or its value: NextStep, SameStep, Disabled.
        render_mode: render mode of every slot.
        **options: arguments of every slot, see `EnvConfig`; slot i gets `seed` + i.
    """

    def __init__(
        self,
        num_envs: int | None = None,
        *,
        slots: Sequence[Mapping[str, Any]] | None = None,
        num_workers: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        own = _own_options(num_envs, slots)
        self.num_envs = len(own)
        self.autoreset_mode = _mode(autoreset_mode)
        self.render_mode = render_mode
        self.envs: list[InspatioEnv] = []
        for i, differing in enumerate(own):
            with _in_slot(i):
                self.envs.append(InspatioEnv(render_mode=render_mode, **_options_of(i, options, differing)))
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        for i, env in enumerate(self.envs):
            for name in ("observation_space", "action_space"):
                first, other = getattr(self.envs[0], name), getattr(env, name)
                if other != first:
                    raise InputError(
                        f"slot {i}: its {name} is {other}, that of slot 0 {first}: want the same; "
                        "set observations, size_px and action for all slots"
                    )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {**self.envs[0].metadata, "autoreset_mode": self.autoreset_mode}
        self.first_slot = 0  # index of the first slot, in a worker
        self._observations: list[Observations | None] = [None] * self.num_envs
        self._is_over = np.zeros(self.num_envs, np.bool_)
        self._workers: Workers | None = None
        if check_num_workers(num_workers, self.num_envs):
            resolved = [_options_of(i, options, differing) for i, differing in enumerate(own)]
            self._workers = Workers(resolved, int(num_workers), self.autoreset_mode.value, render_mode)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start an episode in every slot, or in those of `options["reset_mask"]`."""
        shared = dict(options or {})
        mask = shared.pop("reset_mask", None)
        slots = list(range(self.num_envs)) if mask is None else self._slots_of(mask)
        differing = self._one_a_slot("options['slots']", shared.pop("slots", None))
        seeds = self._seeds(seed)
        missing = [i for i, seen in enumerate(self._observations) if seen is None and i not in slots]
        if missing:
            raise ResetNeeded(
                f"reset_mask leaves out {self._named(missing)}, which was never reset: reset all slots first"
            )
        answers = self.reset_slots(slots, [seeds[i] for i in slots], [shared | dict(differing[i] or {}) for i in slots])
        infos: dict[str, Any] = {}
        for i, (_, info) in zip(slots, answers, strict=True):
            infos = self._add_info(infos, info, i)
        return self._stacked(), infos

    def step(self, actions: Any) -> StepResult:
        """Step every slot; the class documents what happens to finished episodes."""
        steps = self.step_slots(actions)
        infos: dict[str, Any] = {}
        for i, step in enumerate(steps):
            if step.last is not None:
                final_observation, final_info = step.last
                infos = self._add_info(infos, {"final_obs": final_observation, "final_info": final_info}, i)
            infos = self._add_info(infos, step.info, i)
        rewards = np.array([step.reward for step in steps], np.float64)
        terminated = np.array([step.terminated for step in steps], np.bool_)
        truncated = np.array([step.truncated for step in steps], np.bool_)
        return self._stacked(), rewards, terminated, truncated, infos

    def reset_slots(
        self,
        slots: Sequence[int],
        seeds: Sequence[int | None] | None = None,
        options: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> list[Answer]:
        """`InspatioEnv.reset` in some slots, together."""
        seeds = seeds or [None] * len(slots)
        options = options or [None] * len(slots)
        if self._workers is not None:
            shown = self._workers.reset_slots(slots, seeds, options)
            for i, (observation, _) in zip(slots, shown, strict=True):
                self._observations[i] = observation
                self._is_over[i] = False
            return shown
        starts = {}
        for i, seed, asked in zip(slots, seeds, options, strict=True):
            with self._in_slot(i):
                starts[i] = self.envs[i].plan_reset(seed, asked)
        answers = {}
        for group in self._by_generator(slots):
            world_seeds, poses = zip(*(starts[i] for i in group), strict=True)
            shown = reset_worlds([self.envs[i].world for i in group], world_seeds, poses)
            for i, observation in zip(group, shown, strict=True):
                answers[i] = self.envs[i].finish_reset(observation)
                self._observations[i] = answers[i][0]
                self._is_over[i] = False
        self.metadata["render_fps"] = self.envs[0].metadata["render_fps"]
        return [answers[i] for i in slots]

    def step_slots(self, actions: Any) -> list[SlotStep]:
        """`step`, with one answer per slot."""
        actions = self._one_action_a_slot(actions)
        over = [i for i in range(self.num_envs) if self._is_over[i]]
        if over and self.autoreset_mode == AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"step after the end of the episode in {self._named(over)}: call "
                "reset(options={'reset_mask': mask}) first"
            )
        if self._workers is not None:
            for i, action in enumerate(actions):
                with self._in_slot(i):
                    checked_action(action, self.single_action_space)
            steps_there = self._workers.step_slots(actions)
            self._observations = [step.observation for step in steps_there]
            if self.autoreset_mode == AutoresetMode.DISABLED:  # otherwise the workers handle it
                self._is_over[:] = [step.terminated or step.truncated for step in steps_there]
            return steps_there
        steps = self._act([i for i in range(self.num_envs) if i not in over], actions)
        ended = [i for i, step in steps.items() if step.terminated or step.truncated]
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            for i, (observation, info) in zip(ended, self.reset_slots(ended), strict=True):
                step = steps[i]
                steps[i] = SlotStep(
                    observation=observation,
                    reward=step.reward,
                    terminated=step.terminated,
                    truncated=step.truncated,
                    info=info,
                    last=(step.observation, step.info),
                )
        for i, (observation, info) in zip(over, self.reset_slots(over), strict=True):
            steps[i] = SlotStep(observation=observation, reward=0.0, terminated=False, truncated=False, info=info)
        return [steps[i] for i in range(self.num_envs)]

    def render(self) -> tuple[Any, ...]:
        """What each slot renders."""
        return tuple(self._workers.render() if self._workers is not None else (env.render() for env in self.envs))

    def call_slot(
        self, slot: int, name: str, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """An attribute of a slot's env (public, such as `episode`), or what its method returns (such as `snapshot`).

        Not `reset` or `step`, which would bypass the vector env. Values from a worker are copies.
        """
        if self._workers is not None:
            return self._workers.call(slot, name, *arguments, **(named or {}))
        found = self.envs[slot].get_wrapper_attr(name)
        return found(*arguments, **(named or {})) if callable(found) else found

    def close_extras(self, **kwargs: Any) -> None:
        """Close every slot."""
        del kwargs
        for env in self.envs:
            env.close()
        if self._workers is not None:
            self._workers.close()

    def _act(self, slots: list[int], actions: Sequence[Any]) -> dict[int, SlotStep]:
        """Step some slots; all actions are checked before any world moves."""
        plans = {}
        for i in slots:
            with self._in_slot(i):
                plans[i] = self.envs[i].plan(actions[i])
        steps: dict[int, SlotStep] = {}
        left = {i: self.envs[i].config.frame_skip for i in slots}  # blocks left
        while left:
            for group in self._by_generator(left):
                motions, times = zip(*(plans[i] for i in group), strict=True)
                shown = step_worlds([self.envs[i].world for i in group], motions, times)
                for i, observation in zip(group, shown, strict=True):
                    if left[i] > 1:
                        self.envs[i].watch(observation)
                        continue
                    seen, reward, terminated, truncated, info = self.envs[i].finish(observation)
                    self._observations[i] = seen
                    self._is_over[i] = terminated or truncated
                    steps[i] = SlotStep(
                        observation=seen, reward=reward, terminated=terminated, truncated=truncated, info=info
                    )
            left = {i: num_blocks - 1 for i, num_blocks in left.items() if num_blocks > 1}
        return steps

    def _by_generator(self, slots: Iterable[int]) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for i in slots:
            groups.setdefault(id(self.envs[i].world.generator), []).append(i)
        return list(groups.values())

    def _in_slot(self, slot: int) -> AbstractContextManager[None]:
        return _in_slot(self.first_slot + slot)

    def _named(self, slots: Sequence[int]) -> str:
        numbers = ", ".join(str(self.first_slot + slot) for slot in slots)
        return f"slot{'s' * (len(slots) > 1)} {numbers}"

    def _stacked(self) -> Observations:
        """Copies of the last observations of all slots, batched."""
        seen = [observation for observation in self._observations if observation is not None]
        assert len(seen) == self.num_envs, "every slot was reset"
        return {name: np.stack([observation[name] for observation in seen]) for name in seen[0]}

    def _slots_of(self, mask: object) -> list[int]:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InputError(f"options['reset_mask'] is {got}: want a numpy array, bool, of shape ({self.num_envs},)")
        if not mask.any():
            raise InputError("options['reset_mask'] has no True: want at least one slot to reset")
        return [int(i) for i in np.flatnonzero(mask)]

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        return self._one_a_slot("seed", seed)

    def _one_a_slot(self, name: str, values: Sequence[Any] | None) -> Sequence[Any]:
        if values is None:
            return [None] * self.num_envs
        if not isinstance(values, (list, tuple)) or len(values) != self.num_envs:
            got = f"has {len(values)}" if isinstance(values, (list, tuple)) else f"is a {type(values).__name__}"
            raise InputError(f"{name} {got}: want a list of {self.num_envs}, one for each slot")
        return values

    def _one_action_a_slot(self, actions: Any) -> Sequence[Any]:
        num_actions = len(actions) if isinstance(actions, (list, tuple)) else (*np.shape(actions), 0)[0]
        if num_actions != self.num_envs:
            raise InputError(
                f"actions: {num_actions} for {self.num_envs} slots: want one per slot, see env.action_space"
            )
        return actions


def _own_options(num_envs: int | None, slots: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """The arguments of each slot."""
    if num_envs is not None and (isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1):
        raise InputError(f"num_envs={num_envs!r}: want a whole number of at least 1")
    if slots is None:
        return [{}] * (num_envs or 1)
    if not isinstance(slots, (list, tuple)) or not slots or not all(isinstance(slot, Mapping) for slot in slots):
        raise InputError(f"slots={slots!r}: want a list of dicts, one for each slot")
    if num_envs not in (None, len(slots)):
        raise InputError(f"num_envs={num_envs} with {len(slots)} slots: want num_envs={len(slots)}")
    return list(slots)


def _options_of(slot: int, shared: Mapping[str, Any], differing: Mapping[str, Any]) -> dict[str, Any]:
    options = {**shared, **differing}
    if isinstance(shared.get("seed"), int) and "seed" not in differing:
        options["seed"] = shared["seed"] + slot
    return options


def _mode(asked: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(asked)
    except ValueError as error:
        known = ", ".join(mode.value for mode in AutoresetMode)
        raise InputError(f"autoreset_mode={asked!r}: want one of {known}") from error


@contextmanager
def _in_slot(slot: int) -> Iterator[None]:
    """Name the slot in errors about its arguments."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"slot {slot}: {error}") from error
