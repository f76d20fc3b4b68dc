"""The stages as the trainer sees them: motion teacher, causal initialisation, joint distillation.

Each is one class: what it trains, and how one step of it goes. The mathematics is in the modules it calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS, FlowSchedule
from inspatio_sim.generators.presets.star_config import MASK_CHANNELS
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import euler_sample
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.pictures import contact_sheet
from inspatio_sim.training.engine.iteration import Iteration, MicroBatch, SampleRandom, Source
from inspatio_sim.training.engine.trainer import AdamConfig, StageDefaults, Trained
from inspatio_sim.training.star.chunkwise import backward, roll_out
from inspatio_sim.training.star.flows import Conditions, teacher_flow
from inspatio_sim.training.star.losses import clip_gradient, flow_matching_loss, noised_on_table
from inspatio_sim.training.star.matching import GUIDANCE, ScoreNoise, critic_loss, student_gradient
from inspatio_sim.training.star.rehearsal import rehearse

SHEET_FRAMES = 8
SAMPLE_SEED = 0  # of the noise that sample pictures begin as
SAMPLE_EULER_STEPS = 8  # of a teacher, for a look
STUDENT_CALLS = ("forward", "write_context", "denoise", "time_modulation", "text_keys")
"""Methods through which a transformer is trained; `rotary` has no weights."""

Clips = Source[tuple[Tensor, Conditions]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A clip that is not trained on, for pictures of how far a network is."""

    codec: Codec
    target: Tensor  # [1, F, C, h, w]
    conditions: Conditions

    def noise(self, generator: torch.Generator, num_latents: int) -> Tensor:
        """Standard normal, drawn on the CPU. [1, num_latents, C, h, w]"""
        shape = (1, num_latents, *self.target.shape[2:])
        return torch.randn(shape, generator=generator).to(self.target.device)

    def sheet(self, made: Tensor) -> NDArray[np.uint8]:
        """Truth, the view it is made from (if there is one), and what was made, below one another. [H, W, 3]"""
        rows = [self.target, made.float()]
        if self.conditions.view is not None:
            rows.insert(1, self.conditions.view[:, :, MASK_CHANNELS:])
        with torch.autocast(made.device.type, enabled=False):
            videos = [self.codec.decode(latents)[0] for latents in rows]  # [T, 3, H, W] in [-1, 1]
        frames = torch.cat(videos, dim=2).movedim(1, -1)
        return contact_sheet((127.5 * (frames + 1)).round().byte().cpu().numpy(), max_frames=SHEET_FRAMES)


class TeacherStage(StageDefaults):
    """Stage 1: a bidirectional teacher learns to film the scene along another path."""

    def __init__(
        self,
        teacher: StarTransformer,
        clips: Clips,
        *,
        adam: AdamConfig,
        schedule: FlowSchedule,
        shown: Shown | None = None,
    ) -> None:
        self.teacher, self.clips, self.adam, self.schedule, self.shown = teacher, clips, adam, schedule, shown

    def modules(self) -> Mapping[str, Trained]:
        return {"teacher": Trained(module=self.teacher, entry_points=STUDENT_CALLS, is_averaged=True)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.adam.make(self.teacher)}

    def step(self, step: Iteration) -> None:
        for batch in step.update("adam", self.clips):
            target, conditions = batch.data
            noised = noised_on_table(
                target, batch.random.normal(*target.shape[1:]), batch.random.integers(1000), self.schedule
            )
            loss = flow_matching_loss(teacher_flow(self.teacher, noised.x_t, noised.timestep, conditions), noised)
            step.backward(loss)
            step.log(loss=loss)

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        if self.shown is None:
            return {}
        shown = self.shown
        timesteps = self.schedule.warped([1000 * i // SAMPLE_EULER_STEPS for i in range(SAMPLE_EULER_STEPS, 0, -1)])

        def flow(x_t: Tensor, i: int) -> Tensor:
            return teacher_flow(self.teacher, x_t, timesteps[i : i + 1].to(x_t.device), shown.conditions)

        noise = shown.noise(torch.Generator().manual_seed(SAMPLE_SEED), shown.target.shape[1])
        return {"teacher": shown.sheet(euler_sample(flow, self.schedule.sigma(timesteps).tolist(), noise))}


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Of the causal initialisation."""

    own_history_share: float = 0.3  # chance that a chunk's history is the student's own, once it begins
    own_history_from: int = 0  # step from which it may be

    def __post_init__(self) -> None:
        if not 0 <= self.own_history_share <= 1 or self.own_history_from < 0:
            raise InputError(
                f"own history {self.own_history_share} from {self.own_history_from}: want 0..1, and 0 or more"
            )


class InitStage(StageDefaults):
    """Stage 2: the student rehearses streaming through the real cache."""

    def __init__(
        self,
        student: StarTransformer,
        clips: Clips,
        *,
        adam: AdamConfig,
        schedule: FlowSchedule,
        config: InitConfig,
        shown: Shown | None = None,
    ) -> None:
        self.student, self.clips, self.adam, self.schedule, self.config = student, clips, adam, schedule, config
        self.shown = shown

    def modules(self) -> Mapping[str, Trained]:
        return {"student": Trained(module=self.student, entry_points=STUDENT_CALLS, is_averaged=True)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.adam.make(self.student)}

    def step(self, step: Iteration) -> None:
        share = self.config.own_history_share if step.step_idx >= self.config.own_history_from else 0.0
        for batch in step.update("adam", self.clips):
            target, conditions = batch.data
            num_chunks = target.shape[1] // BLOCK_LATENTS
            loss = rehearse(
                self.student,
                target,
                conditions,
                epsilon=batch.random.normal(*target.shape[1:]),
                index=batch.random.integers(1000, num_chunks).T,
                uses_own_history=(step.shared.random(num_chunks) < share).tolist(),
                schedule=self.schedule,
                chunk_latents=BLOCK_LATENTS,
                send_back=step.backward,
            )
            step.log(loss=loss)

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        if self.shown is None:
            return {}
        return {"student": _streamed(self.student, self.shown, DISTILLED_STEPS, self.schedule)}


TaskName = Literal["v2v", "t2v"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the distributions that are matched: clips along a path (v2v), or from a caption alone (t2v)."""

    name: TaskName
    real: StarTransformer  # frozen
    fake: StarTransformer  # the critic
    clips: Clips
    weight: float = 1.0  # lambda


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Of the joint distribution matching distillation."""

    critic_updates: int = 5  # for one of the student, task by task
    guidance: float = GUIDANCE
    steps: tuple[int, ...] = DISTILLED_STEPS
    student: AdamConfig = field(default_factory=lambda: AdamConfig(lr=2e-6, betas=(0.0, 0.999)))
    critic: AdamConfig = field(default_factory=lambda: AdamConfig(lr=4e-7, betas=(0.0, 0.999)))

    def __post_init__(self) -> None:
        if self.critic_updates < 1:
            raise InputError(f"critic_updates={self.critic_updates}: want 1 or more")


class DistillStage(StageDefaults):
    """Stage 3: a few steps of the student come to match what the teachers make in many.

    Tasks take turns. Each counts its own steps, so that each trains its critic every time and the student every
    `critic_updates` times.
    """

    def __init__(
        self,
        student: StarTransformer,
        tasks: tuple[Task, ...],
        *,
        negative_text: Tensor,
        schedule: FlowSchedule,
        config: DistillConfig,
        shown: Shown | None = None,
    ) -> None:
        """`negative_text` is what guidance leads away from. [L, text_dim]"""
        if not tasks or len({task.name for task in tasks}) != len(tasks):
            raise InputError(f"tasks {[task.name for task in tasks]}: want at least one, each once")
        self.student, self.tasks, self.schedule, self.config = student, tasks, schedule, config
        self.negative_text, self.shown = negative_text, shown
        self.counts = {task.name: 0 for task in tasks}
        for task in tasks:
            task.real.requires_grad_(False).eval()

    def modules(self) -> Mapping[str, Trained]:
        student = Trained(module=self.student, entry_points=STUDENT_CALLS, is_averaged=True)
        critics = {f"critic_{task.name}": Trained(module=task.fake, entry_points=STUDENT_CALLS) for task in self.tasks}
        return {"student": student, **critics}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        critics = {f"critic_{task.name}": self.config.critic.make(task.fake) for task in self.tasks}
        return {"student": self.config.student.make(self.student), **critics}

    def state(self) -> Mapping[str, int | float]:
        return dict(self.counts)

    def load_state(self, state: Mapping[str, int | float]) -> None:
        self.counts = {task.name: int(state[task.name]) for task in self.tasks}

    def step(self, step: Iteration) -> None:
        task = self.tasks[step.step_idx % len(self.tasks)]
        exit_step = int(step.shared.integers(len(self.config.steps)))  # the same on every rank and for every chunk
        for batch in step.update(f"critic_{task.name}", task.clips):
            x, conditions = self._generated(task, batch, exit_step)
            loss = critic_loss(task.fake, x, conditions, _look(x, batch.random), self.schedule)
            step.backward(loss)
            step.log(**{f"critic_{task.name}": loss})
        self.counts[task.name] += 1
        if self.counts[task.name] % self.config.critic_updates:
            return
        for batch in step.update("student", task.clips):
            target, conditions = _of_task(task, batch.data)
            rolled = self._rolled(target, conditions, batch.random, exit_step)
            g = student_gradient(
                rolled.latents,
                conditions,
                _look(rolled.latents, batch.random),
                real=task.real,
                fake=task.fake,
                negative_text=self.negative_text.to(step.device).expand(len(target), -1, -1),
                schedule=self.schedule,
                guidance=self.config.guidance,
            )
            sent = task.weight * clip_gradient(g)
            backward(self.student, rolled, conditions, sent, send_back=step.backward)
            step.log(**{f"gradient_{task.name}": g.abs().mean(), f"std_{task.name}": rolled.latents.std()})

    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        if self.shown is None:
            return {}
        return {"student": _streamed(self.student, self.shown, self.config.steps, self.schedule)}

    def _generated(
        self, task: Task, batch: MicroBatch[tuple[Tensor, Conditions]], exit_step: int
    ) -> tuple[Tensor, Conditions]:
        target, conditions = _of_task(task, batch.data)
        return self._rolled(target, conditions, batch.random, exit_step).latents, conditions

    def _rolled(self, target: Tensor, conditions: Conditions, random: SampleRandom, exit_step: int):  # noqa: ANN202
        shape = (BLOCK_LATENTS, *target.shape[2:])
        return roll_out(
            self.student,
            conditions,
            lambda chunk, i: random.normal(*shape),
            num_chunks=target.shape[1] // BLOCK_LATENTS,
            steps=self.config.steps,
            exit_step=exit_step,
            schedule=self.schedule,
        )


def _streamed(
    student: StarTransformer, shown: Shown, steps: tuple[int, ...], schedule: FlowSchedule
) -> NDArray[np.uint8]:
    """What the student makes of a clip, chunk after chunk, as a picture."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    rolled = roll_out(
        student,
        shown.conditions,
        lambda chunk, i: shown.noise(generator, BLOCK_LATENTS),
        num_chunks=shown.target.shape[1] // BLOCK_LATENTS,
        steps=steps,
        exit_step=len(steps) - 1,
        schedule=schedule,
    )
    return shown.sheet(rolled.latents)


def _of_task(task: Task, data: tuple[Tensor, Conditions]) -> tuple[Tensor, Conditions]:
    """Targets serve for their size alone; from a caption alone there is neither reference nor view."""
    target, conditions = data
    return target, conditions if task.name == "v2v" else replace(conditions, reference=None, view=None)


def _look(x: Tensor, random: SampleRandom) -> ScoreNoise:
    return ScoreNoise(epsilon=random.normal(*x.shape[1:]), u=random.integers(1000))
