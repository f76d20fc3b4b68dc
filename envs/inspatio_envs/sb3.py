"""An adapter to Stable-Baselines3's vector envs; install it with `pip install 'inspatio-sim[rl]'`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from inspatio_envs.env import InspatioEnv
from inspatio_envs.vector_env import InspatioVectorEnv, Observations
from inspatio_sim.errors import InputError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        "inspatio_envs.sb3: package stable-baselines3 is missing: pip install 'inspatio-sim[rl]'"
    ) from error

Indices = int | Iterable[int] | None


class InspatioVecEnv(VecEnv):
    """An `InspatioVectorEnv` for the algorithms of Stable-Baselines3.

    With `layout="pictures"` all observations except vectors are images that its policies accept. Wrap it in
    `VecMonitor` to log returns and episode lengths.

    Example:
        envs = gymnasium.make_vec(
            "inspatio_envs:inspatio/PointNav-v0", num_envs=8, layout="pictures", autoreset_mode="SameStep"
        )
        PPO("MultiInputPolicy", VecMonitor(InspatioVecEnv(envs))).learn(100_000)

    Args:
        envs: made with `autoreset_mode="SameStep"`; closed together with this env.
    """

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        inner = envs.unwrapped
        if envs is not inner or not isinstance(inner, InspatioVectorEnv):
            raise InputError(f"envs is a {type(envs).__name__}: want an InspatioVectorEnv without wrappers")
        if inner.autoreset_mode != AutoresetMode.SAME_STEP:
            raise InputError(f"envs.autoreset_mode is {inner.autoreset_mode.value}: want autoreset_mode='SameStep'")
        self.inner = inner
        self._actions: NDArray[Any] | None = None
        super().__init__(inner.num_envs, inner.single_observation_space, inner.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every slot, with the seeds and options of `seed` and `set_options`."""
        answers = self.inner.reset_slots(range(self.num_envs), self._seeds, self._options)
        self.reset_infos = [info for _, info in answers]
        self._reset_seeds()
        self._reset_options()
        return _stacked([observation for observation, _ in answers])

    def step_async(self, actions: NDArray[Any]) -> None:
        """Store the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every slot; a slot whose episode ended already shows the next one."""
        steps = self.inner.step_slots(self._actions)
        infos = []
        for i, step in enumerate(steps):
            info = step.info
            if step.last is not None:
                self.reset_infos[i] = step.info
                last_observation, info = step.last
                info = {**info, "terminal_observation": last_observation}
            infos.append({**info, "TimeLimit.truncated": step.truncated and not step.terminated})
        return (
            _stacked([step.observation for step in steps]),
            np.array([step.reward for step in steps], np.float32),
            np.array([step.terminated or step.truncated for step in steps], np.bool_),
            infos,
        )

    def close(self) -> None:
        """Close every slot."""
        self.inner.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of each slot."""
        return [env.get_wrapper_attr(attr_name) for env in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute in each slot."""
        for env in self._chosen(indices):
            setattr(env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any) -> list:
        """Call a method of each slot; not `reset` or `step`, which would bypass the vector env."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Indices = None) -> list[bool]:
        """No slot is wrapped."""
        del wrapper_class
        return [False for _ in self._chosen(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The last frame of each slot, with `render_mode="rgb_array"`."""
        return cast(Sequence[NDArray[np.uint8] | None], self.inner.render())

    def _chosen(self, indices: Indices) -> list[InspatioEnv]:
        return [self.inner.envs[i] for i in self._get_indices(indices)]


def _stacked(observations: Sequence[Observations]) -> Observations:
    return {name: np.stack([observation[name] for observation in observations]) for name in observations[0]}
