"""From noise to the clean latents of one frame, in one or two steps, or in many with a solver.

Shapes: B worlds, C latent channels, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.frame.schedule import BETA_END, BETA_START, NUM_TIMESTEPS, DdpmSchedule
from inspatio_sim.generators.presets.frame_config import FrameConfig

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

FIRST_STEP = NUM_TIMESTEPS - 1
TWO_STEPS = (FIRST_STEP, 200)

Prediction = Literal["velocity", "epsilon"]
Solver = Literal["few-step", "dpm"]


class FrameNetwork(Protocol):
    """What samples: `FrameTransformer`, or one made ready for a CPU."""

    @property
    def config(self) -> FrameConfig: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def modulation(self, timestep: Tensor) -> TimeModulation: ...
    def denoise(
        self, x: Tensor, time: TimeModulation, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor: ...
    def __call__(
        self, x: Tensor, timestep: Tensor, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor: ...


Noise = Callable[[int], Tensor]
"""Fresh standard normal noise for step i of a frame; 0 is what the frame begins as. -> [B, C, h, w]"""


@dataclass(frozen=True, kw_only=True)
class FrameSamplerConfig:
    """How a frame is sampled."""

    steps: tuple[int, ...] = TWO_STEPS  # timesteps of few-step sampling, falling from 999
    prediction: Prediction = "velocity"  # what the network's result is taken for
    solver: Solver = "few-step"  # dpm: DPM-Solver++ of second order, for networks that are not distilled
    num_dpm_steps: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps or any(not 0 <= step <= FIRST_STEP or step != int(step) for step in self.steps):
            raise InputError(f"steps={list(self.steps)}: want whole numbers from {FIRST_STEP} down to 0, at least one")
        if self.steps[0] != FIRST_STEP or list(self.steps) != sorted(set(self.steps), reverse=True):
            wanted = f"want them falling from {FIRST_STEP}, each once, such as {list(TWO_STEPS)}"
            raise InputError(f"steps={list(self.steps)}: {wanted}")
        for name, choices in (("prediction", get_args(Prediction)), ("solver", get_args(Solver))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}={getattr(self, name)!r}: want one of {', '.join(choices)}")
        if not isinstance(self.num_dpm_steps, int) or not 1 <= self.num_dpm_steps <= FIRST_STEP:
            raise InputError(f"num_dpm_steps={self.num_dpm_steps!r}: want a whole number from 1 to {FIRST_STEP}")


class FrameSampler:
    """Samples frames with one network, whose weights stay as they are; holds what does not change between frames."""

    def __init__(self, network: FrameNetwork, config: FrameSamplerConfig | None = None) -> None:
        self.network = network
        self.config = config or FrameSamplerConfig()
        self._schedule = DdpmSchedule(network.device)
        self._solver = _dpm_solver(self.config) if self.config.solver == "dpm" else None
        steps = self.config.steps if self._solver is None else self._solver.timesteps.tolist()
        self._timesteps = [torch.tensor([int(step)], device=network.device) for step in steps]
        self._times: list[TimeModulation] = []  # of every step

    @torch.inference_mode()
    def sample(self, *, noise: Noise, anchors: Tensor | None, reference: Tensor | None) -> Tensor:
        """One frame for each world.

        Args:
            noise: see `Noise`; asked for once a step, by a solver for step 0 only.
            anchors: latents of the anchors' render, and the mask. [B, C + mask_channels, h, w]
            reference: the same of the reference view; None like the anchors: an image from noise alone.

        Returns:
            Clean latents. float32 [B, C, h, w]
        """
        if not self._times:
            self._times = [self.network.modulation(timestep) for timestep in self._timesteps]

        def predict(x_t: Tensor, step: int) -> Tensor:
            return self.network.denoise(x_t, self._times[step], anchors, reference)[:, : x_t.shape[1]]

        x = noise(0)
        return self._in_few_steps(x, noise, predict) if self._solver is None else self._solved(x, predict, self._solver)

    def _in_few_steps(self, x: Tensor, noise: Noise, predict: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Estimate x_0, put it back to the next noise level with fresh noise, again."""
        is_velocity = self.config.prediction == "velocity"
        to_clean = self._schedule.clean_from_velocity if is_velocity else self._schedule.clean_from_epsilon
        for step, timestep in enumerate(self._timesteps):
            if step:
                x = self._schedule.noised(x, noise(step), timestep)
            x = to_clean(x, predict(x, step), timestep)
        return x

    def _solved(
        self, x: Tensor, predict: Callable[[Tensor, int], Tensor], solver: DPMSolverMultistepScheduler
    ) -> Tensor:
        solver.set_timesteps(self.config.num_dpm_steps)  # forgets the frame before
        x = x.float()
        for step, timestep in enumerate(solver.timesteps):
            result: Any = solver.step(predict(x, step).float(), timestep, x)  # pyright: ignore[reportArgumentType]
            x = result.prev_sample
        return x


def _dpm_solver(config: FrameSamplerConfig) -> DPMSolverMultistepScheduler:
    try:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    except ImportError as error:
        raise InputError("solver='dpm' needs the package diffusers: pip install 'inspatio-sim[wan]'") from error
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        prediction_type="v_prediction" if config.prediction == "velocity" else "epsilon",
        solver_order=2,
        algorithm_type="dpmsolver++",
    )
    solver.set_timesteps(config.num_dpm_steps)
    return solver
