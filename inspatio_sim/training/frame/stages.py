"""The frame generator's stages as the trainer sees them: pretraining, control, distillation to a few steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.image import ImageCodec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from inspatio_sim.training.engine.distribution_matching import matching_loss
from inspatio_sim.training.engine.iteration import Iteration, SampleRandom, Source
from inspatio_sim.training.engine.trainer import AdamConfig, StageDefaults, Trained
from inspatio_sim.training.frame.data import FrameBatch
from inspatio_sim.training.frame.diffusion import (
    Conditions,
    DiffusionConfig,
    check_steps,
    draw_timestep,
    few_steps,
    many_steps,
    score_timestep,
    student_direction,
    velocity_errors,
    weights_of,
    with_noise,
)

SAMPLE_SEED = 0  # of the noise that sample pictures begin as
PRETRAIN_SAMPLE_STEPS = 25  # for a look

Frames = Source[FrameBatch]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Frames that are not trained on, for pictures of how far a network is."""

    codec: ImageCodec
    batch: FrameBatch

    def noise(self, step_idx: int, device: torch.device) -> Tensor:
        """Standard normal, drawn on the CPU. [B, C, h, w]"""
        generator = torch.Generator().manual_seed(SAMPLE_SEED + step_idx)
        return torch.randn(self.batch.target.shape, generator=generator).to(device)

    def sheet(self, made: Tensor, *, has_conditions: bool) -> NDArray[np.uint8]:
        """A row a frame: target, anchors and reference (if it was made from them), what was made. [H, W, 3]"""
        channels = self.batch.target.shape[1]
        columns = [self.batch.target, made.float().cpu()]
        if has_conditions:
            columns[1:1] = [self.batch.anchors[:, :channels], self.batch.reference[:, :channels]]
        with torch.autocast(made.device.type, enabled=False):
            images = [self.codec.decode(latents).float().cpu() for latents in columns]  # each [B, 3, H, W]
        rows = torch.cat(images, dim=3).clamp(-1, 1).permute(0, 2, 3, 1).flatten(0, 1)
        return (127.5 * (rows + 1)).round().byte().numpy()


class _Stage(StageDefaults):
    """What the three have in common: the data, the schedule, pictures by the network in training."""

    def __init__(
        self, frames: Frames, *, schedule: DdpmSchedule, config: DiffusionConfig, shown: Shown | None = None
    ) -> None:
        self.frames, self.schedule, self.config, self.shown = frames, schedule, config, shown

    def conditions(self, batch: FrameBatch, random: SampleRandom, device: torch.device) -> Conditions:
        """As training shows them: with noise."""
        return Conditions(
            anchors=with_noise(batch.anchors.to(device), random, self.config.cond_noise),
            reference=with_noise(batch.reference.to(device), random, self.config.cond_noise),
        )

    def in_few_steps(self, network: FrameTransformer, steps: tuple[int, ...]) -> Mapping[str, NDArray[np.uint8]]:
        """The sheet of what a network makes of the frames shown."""
        if self.shown is None:
            return {}
        shown, device = self.shown, network.device
        made = few_steps(
            network,
            lambda i: shown.noise(i, device),
            Conditions(anchors=shown.batch.anchors.to(device), reference=shown.batch.reference.to(device)),
            steps=steps,
            exit_step=len(steps) - 1,
            schedule=self.schedule,
        )
        return {"frames": shown.sheet(made, has_conditions=True)}

    def diffusion_loss(
        self,
        network: FrameTransformer,
        step: Iteration,
        target: Tensor,
        conditions: Conditions,
        random: SampleRandom,
    ) -> Tensor:
        """Of the velocity at random noise levels; logged too, and apart where nothing but noise was shown. -> []"""
        timestep = draw_timestep(random, self.config)
        noise = random.normal(*target.shape[1:])
        errors = velocity_errors(network, target, noise, timestep, conditions, self.schedule)
        loss = (weights_of(timestep, self.schedule, self.config.min_snr_gamma) * errors).mean()
        step.log(loss=loss)
        is_first = timestep == self.config.steps[0]
        if step.device.type == "cpu" and is_first.any():  # a GPU would have to wait for the answer
            step.log(loss_from_noise=errors[is_first].mean())
        return loss


class _DiffusionStage(_Stage):
    """A network that learns the velocity at all noise levels."""

    def __init__(
        self,
        network: FrameTransformer,
        frames: Frames,
        *,
        adam: AdamConfig,
        schedule: DdpmSchedule,
        config: DiffusionConfig,
        shown: Shown | None = None,
    ) -> None:
        super().__init__(frames, schedule=schedule, config=config, shown=shown)
        self.network, self.adam = network, adam

    def modules(self) -> Mapping[str, Trained]:
        return {"frame": Trained(module=self.network, is_averaged=True)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.adam.make(self.network)}


class PretrainStage(_DiffusionStage):
    """Stage 1: images by themselves."""

    def step(self, step: Iteration) -> None:
        for batch in step.update("adam", self.frames):
            target = batch.data.target.to(step.device)
            step.backward(self.diffusion_loss(self.network, step, target, Conditions(), batch.random))

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        if self.shown is None:
            return {}
        noise = self.shown.noise(0, self.network.device)
        made = many_steps(
            self.network, noise, Conditions(), num_steps=PRETRAIN_SAMPLE_STEPS, schedule=self.schedule
        )  # fmt: skip
        return {"frames": self.shown.sheet(made, has_conditions=False)}


class ControlStage(_DiffusionStage):
    """Stage 2: images from anchors and a reference view."""

    def step(self, step: Iteration) -> None:
        for batch in step.update("adam", self.frames):
            target = batch.data.target.to(step.device)
            conditions = self.conditions(batch.data, batch.random, step.device)
            step.backward(self.diffusion_loss(self.network, step, target, conditions, batch.random))

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        return self.in_few_steps(self.network, self.config.steps)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Of the distribution matching distillation."""

    steps: tuple[int, ...] = (999, 200)  # timesteps of the student
    critic_updates: int = 5  # for one of the student
    regression_weight: float = 0.25  # of the squared distance to the true image, beside the matching
    student: AdamConfig = field(default_factory=lambda: AdamConfig(lr=5e-5, betas=(0.0, 0.999)))
    critic: AdamConfig = field(default_factory=lambda: AdamConfig(lr=1e-4, betas=(0.0, 0.999)))

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if self.critic_updates < 1:
            raise InputError(f"distill.critic_updates={self.critic_updates}: want 1 or more")
        if not self.regression_weight >= 0:
            raise InputError(f"distill.regression_weight={self.regression_weight}: want 0 or more")


class DistillStage(_Stage):
    """Stage 3: a few steps of the student come to match what the controlled model makes in many.

    For every step the student leaves off at a step drawn at random, so that each of its steps is trained behind what
    it makes of those before it.
    """

    def __init__(
        self,
        student: FrameTransformer,
        *,
        real: FrameTransformer,
        fake: FrameTransformer,
        frames: Frames,
        schedule: DdpmSchedule,
        config: DiffusionConfig,
        distill: DistillConfig,
        shown: Shown | None = None,
    ) -> None:
        """`real` is the controlled model, `fake` the critic, which begins as a copy of it."""
        super().__init__(frames, schedule=schedule, config=config, shown=shown)
        self.student, self.fake, self.distill = student, fake, distill
        self.real = real.requires_grad_(False).eval()
        self.num_critic_updates = 0

    def modules(self) -> Mapping[str, Trained]:
        return {"frame": Trained(module=self.student, is_averaged=True), "critic": Trained(module=self.fake)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"student": self.distill.student.make(self.student), "critic": self.distill.critic.make(self.fake)}

    def state(self) -> Mapping[str, int | float]:
        return {"num_critic_updates": self.num_critic_updates}

    def load_state(self, state: Mapping[str, int | float]) -> None:
        self.num_critic_updates = int(state["num_critic_updates"])

    def step(self, step: Iteration) -> None:
        exit_step = int(step.shared.integers(len(self.distill.steps)))  # the same on every rank
        for batch in step.update("critic", self.frames):
            conditions = self.conditions(batch.data, batch.random, step.device)
            with torch.no_grad():
                x = self._made(batch.data, conditions, batch.random, exit_step)
            noise, timestep = batch.random.normal(*x.shape[1:]), score_timestep(batch.random)
            loss = velocity_errors(self.fake, x, noise, timestep, conditions, self.schedule).mean()
            step.backward(loss)
            step.log(critic=loss)
        self.num_critic_updates += 1
        if self.num_critic_updates % self.distill.critic_updates:
            return
        for batch in step.update("student", self.frames):
            target = batch.data.target.to(step.device)
            conditions = self.conditions(batch.data, batch.random, step.device)
            x = self._made(batch.data, conditions, batch.random, exit_step)
            g = student_direction(
                x.detach(),
                conditions,
                batch.random.normal(*x.shape[1:]),
                score_timestep(batch.random),
                real=self.real,
                fake=self.fake,
                schedule=self.schedule,
            )
            error = (x - target).square().mean()
            step.backward(matching_loss(x, g) + self.distill.regression_weight * error)
            step.log(gradient=g.abs().mean(), std=x.detach().std(), **{f"error_{exit_step + 1}_steps": error})

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        return self.in_few_steps(self.student, self.distill.steps)

    def _made(self, data: FrameBatch, conditions: Conditions, random: SampleRandom, exit_step: int) -> Tensor:
        return few_steps(
            self.student,
            lambda i: random.normal(*data.target.shape[1:]),
            conditions,
            steps=self.distill.steps,
            exit_step=exit_step,
            schedule=self.schedule,
        )
