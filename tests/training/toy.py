"""A small stage with all that distillation asks of the trainer: two networks, two optimisers, counters, noise.

`python -m tests.training.toy out=FOLDER max_steps=6` trains it, also under torchrun.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.training.engine.distributed import joined
from inspatio_sim.training.engine.iteration import Iteration
from inspatio_sim.training.engine.settings import apply_settings
from inspatio_sim.training.engine.trainer import Trained, Trainer, TrainerConfig


class TwoDoors(nn.Module):
    """A network that is entered through two methods, as the transformer is."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.context_layer = nn.Linear(4, 8)
        self.out_layer = nn.Linear(8, 4)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))

    def context(self, x: Tensor) -> Tensor:
        return self.dropout(self.context_layer(x)).tanh()

    def denoise(self, x: Tensor, context: Tensor) -> Tensor:
        return self.out_layer(context + self.context_layer(x))


class ToyStage:
    """The student learns to undo noise, every second step; the critic learns to tell what the student makes."""

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        self.student = TwoDoors(dropout)
        self.critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.num_student_updates = 0
        self.poison_at = -1
        self.seen: list[list[int]] = []

    def modules(self) -> dict[str, Trained]:
        return {
            "student": Trained(module=self.student, entry_points=("context", "denoise"), is_averaged=True),
            "critic": Trained(module=self.critic),
        }

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "adam": torch.optim.AdamW(self.student.parameters(), lr=1e-2, betas=(0.0, 0.999)),
            "critic_adam": torch.optim.AdamW(self.critic.parameters(), lr=2e-2),
        }

    def batch(self, samples: list[int]) -> Tensor:
        self.seen.append(samples)
        return torch.stack([torch.sin(torch.arange(4) + float(sample)) for sample in samples])

    def step(self, step: Iteration) -> None:
        for batch in step.update("critic_adam", self.batch):
            with torch.no_grad():
                made = self.student.denoise(batch.data, self.student.context(batch.data))
            loss = (self.critic(made + batch.random.normal(4)) - made).square().mean()
            step.backward(loss)
            step.log(critic_loss=loss)
        if step.step_idx % 2 == 0:
            bias = step.shared.normal()
            for batch in step.update("adam", self.batch):
                noise = batch.random.normal(4)
                y = self.student.denoise(batch.data + bias * noise, self.student.context(batch.data))
                if step.step_idx == self.poison_at:
                    y = y * float("nan")
                gradient = 2 * (y.detach() - batch.data) / y.numel()
                step.backward(y, gradient)
                step.log(student_loss=(y - batch.data).square().mean())
            self.student.get_buffer("num_calls").add_(1)
            self.num_student_updates += 1

    def sample(self) -> dict[str, np.ndarray]:
        x = torch.ones(1, 4)
        y = self.student.denoise(x, self.student.context(x))
        return {"picture": (255 * y.sigmoid()).to(torch.uint8).repeat(3, 1)[..., None].repeat(1, 1, 3).numpy()}

    def state(self) -> dict[str, int]:
        return {"num_student_updates": self.num_student_updates}

    def load_state(self, state: Mapping[str, int | float]) -> None:
        self.num_student_updates = int(state["num_student_updates"])


def toy_config(out: Path, settings: list[str] | None = None) -> TrainerConfig:
    config = TrainerConfig(
        out=out, max_steps=6, batch_size=2, log_every=3, checkpoint_every=2, ema_decay=0.5, ema_start=2,
        warmup_updates=2, final_lr=0.1,
    )  # fmt: skip
    return apply_settings(config, settings or [])


def kill_at(step: int) -> None:
    """As `kill -9` would."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(settings: list[str]) -> None:
    config = toy_config(Path("unset"), settings)
    fatal_step = int(os.environ.get("TOY_KILL_AFTER", "-1"))
    with joined("cpu") as ranks:
        stage = ToyStage(dropout=float(os.environ.get("TOY_DROPOUT", "0")))
        trainer = Trainer(stage, config, ranks)
        trainer.run(lambda done, of, newest: kill_at(done) if done == fatal_step else None)


if __name__ == "__main__":
    main(sys.argv[1:])
