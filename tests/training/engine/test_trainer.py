import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.training.engine.checkpoint import latest_checkpoint, load_numbers, load_tensors
from inspatio_sim.training.engine.iteration import Iteration
from inspatio_sim.training.engine.metrics import read_metrics
from inspatio_sim.training.engine.trainer import Trainer, TrainingStopped
from tests.training.toy import ToyStage, toy_config

FILES = ("student", "student.ema", "critic", "adam.optimiser", "critic_adam.optimiser")


def train(out: Path, *settings: str, dropout: float = 0.0) -> Trainer:
    trainer = Trainer(ToyStage(dropout), toy_config(out, list(settings)))
    trainer.run()
    return trainer


def checkpoint(out: Path) -> dict[str, dict[str, Tensor]]:
    path = latest_checkpoint(out / "checkpoints")
    assert path is not None
    return {stem: load_tensors(path, stem) for stem in FILES}


def metrics(out: Path) -> list[dict[str, float | None]]:
    return [{k: v for k, v in row.items() if k != "step_s"} for row in read_metrics(out / "metrics.csv")]


def assert_same(left: Path, right: Path) -> None:
    for stem, tensors in checkpoint(left).items():
        others = checkpoint(right)[stem]
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items()), stem
    assert metrics(left) == metrics(right)


def test_killed_and_gone_on_is_as_never_killed(tmp_path: Path) -> None:
    """Dropout draws from the global generator, metrics are means over 3 steps, checkpoints come every 2."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(whole, dropout=0.3)
    command = [sys.executable, "-m", "tests.training.toy", f"out={killed}"]
    environment = os.environ | {"TOY_KILL_AFTER": "5", "TOY_DROPOUT": "0.3"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert latest_checkpoint(killed / "checkpoints") == killed / "checkpoints" / "step_00000004"
    (killed / "checkpoints" / ".step_00000006.12345678.part").mkdir()
    resumed = train(killed, "resume=true", dropout=0.3)
    assert_same(whole, killed)
    assert not list((killed / "checkpoints").glob(".*"))
    stage = resumed.stage
    assert isinstance(stage, ToyStage)
    assert stage.num_student_updates == 3
    path = latest_checkpoint(killed / "checkpoints")
    assert path is not None
    assert load_numbers(path)["updates"] == {"adam": 3, "critic_adam": 6}


def test_dropout_would_differ_without_its_state(tmp_path: Path) -> None:
    """So that the test above can fail."""
    train(tmp_path / "a", dropout=0.3)
    train(tmp_path / "b", "seed=1", dropout=0.3)
    assert not torch.equal(
        checkpoint(tmp_path / "a")["student"]["out_layer.weight"],
        checkpoint(tmp_path / "b")["student"]["out_layer.weight"],
    )


def test_one_step_is_plain_adam(tmp_path: Path) -> None:
    """Against the update written out, with clipping, warm-up and accumulation."""
    settings = ["max_steps=1", "batch_size=1", "accumulate=2", "clip_norm=0.01", "warmup_updates=3", "final_lr=1"]
    trained = train(tmp_path, *settings)
    stage = ToyStage()
    iteration = Iteration(0, trained._plan, trained.ranks, trained)
    total = torch.zeros(())
    for sample in (0, 1):
        random = trained._plan.sample_random([sample], 0, 0, torch.device("cpu"))
        data = stage.batch([sample])
        made = stage.student.denoise(data, stage.student.context(data)).detach()
        total = total + (stage.critic(made + random.normal(4)) - made).square().mean() / 2
    total.backward()
    adam = stage.optimisers()["critic_adam"]
    adam.param_groups[0]["lr"] *= 1 / 4
    norm = nn.utils.clip_grad_norm_(stage.critic.parameters(), 0.01)
    adam.step()
    for name, weight in stage.critic.state_dict().items():
        torch.testing.assert_close(trained.modules["critic"].state_dict()[name], weight, rtol=0, atol=1e-7)
    row = metrics(tmp_path)[0]
    assert row["critic_loss"] == pytest.approx(total.item(), rel=1e-6)
    assert row["critic_adam_gradient"] == pytest.approx(norm.item(), rel=1e-5)
    assert row["critic_adam_lr"] == pytest.approx(2e-2 / 4)
    assert iteration.step_idx == 0


def test_accumulated_is_the_whole_batch(tmp_path: Path) -> None:
    train(tmp_path / "whole", "batch_size=4")
    train(tmp_path / "parts", "batch_size=1", "accumulate=4")
    parts = checkpoint(tmp_path / "parts")
    for stem, tensors in checkpoint(tmp_path / "whole").items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(parts[stem][name], tensor, rtol=1e-5, atol=1e-6)


def test_every_sample_comes_once(tmp_path: Path) -> None:
    trainer = train(tmp_path, "max_steps=3", "accumulate=2")
    stage = trainer.stage
    assert isinstance(stage, ToyStage)
    student_updates = [0, 2]  # of the same samples as the critic's in these steps
    expected = [[[4 * s, 4 * s + 1], [4 * s + 2, 4 * s + 3]] * (2 if s in student_updates else 1) for s in range(3)]
    assert stage.seen == [samples for step in expected for samples in step]


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    stage = ToyStage()
    stage.poison_at = 4
    trainer = Trainer(stage, toy_config(tmp_path, ["keep_checkpoints=1"]))
    with pytest.raises(TrainingStopped, match=r"step 5: gradient of adam is NaN.*step_00000004") as raised:
        trainer.run()
    assert "\n" not in str(raised.value)
    assert latest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_00000004"
    assert all(x.isfinite().all() for tensors in checkpoint(tmp_path).values() for x in tensors.values())
    assert all(x.isfinite().all() for x in stage.student.state_dict().values())


def test_a_nan_weight_is_never_saved(tmp_path: Path) -> None:
    trainer = Trainer(ToyStage(), toy_config(tmp_path))
    trainer.save()
    with torch.no_grad():
        next(trainer.modules["critic"].parameters())[0, 0] = float("inf")
    with pytest.raises(TrainingStopped, match=r"0\.weight of critic is NaN or infinite; .*step_00000000"):
        trainer.save()
    assert checkpoint(tmp_path)["critic"]["0.weight"].isfinite().all()


def test_bfloat16_is_of_products_alone(tmp_path: Path) -> None:
    """Close to float32, but not the same; the weights stay float32."""
    train(tmp_path / "low", "dtype=bfloat16")
    train(tmp_path / "full")
    low, full = checkpoint(tmp_path / "low"), checkpoint(tmp_path / "full")
    difference = (low["student"]["out_layer.weight"] - full["student"]["out_layer.weight"]).abs().max()
    assert low["student"]["out_layer.weight"].dtype == torch.float32
    assert 0 < difference < 0.02


def test_bfloat16_keeps_no_cast_weights(tmp_path: Path) -> None:
    """Neither casts from before an update, nor casts made without gradients."""
    trainer = Trainer(ToyStage(), toy_config(tmp_path, ["dtype=bfloat16"]))
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    with trainer._products_in_low_precision():
        with torch.no_grad():
            layer(x)
        before = layer(x)
        before.sum().backward()
        assert layer.weight.grad is not None
        with torch.no_grad():
            layer.weight += 1
        torch.testing.assert_close(layer(x), before + 4, atol=0.1, rtol=0)
    assert before.dtype == torch.bfloat16


def test_samples_show_the_average_and_leave_training_alone(tmp_path: Path) -> None:
    train(tmp_path / "with", "sample_every=2", dropout=0.3)
    train(tmp_path / "without", dropout=0.3)
    assert_same(tmp_path / "with", tmp_path / "without")
    assert sorted(path.name for path in (tmp_path / "with/samples").iterdir()) == [
        f"picture_{step:08d}.png" for step in (2, 4, 6)
    ]
    averaged = ToyStage()
    averaged.student.load_state_dict(checkpoint(tmp_path / "without")["student.ema"])
    torch.manual_seed(0)
    trainer = Trainer(averaged, toy_config(tmp_path / "shown"))
    trainer._sample()
    shown = np.asarray(Image.open(tmp_path / "shown/samples/picture_00000000.png"))
    np.testing.assert_array_equal(shown, averaged.sample()["picture"])


def test_interrupt_saves_what_was_done(tmp_path: Path) -> None:
    def interrupt(steps_done: int, max_steps: int, newest: object) -> None:
        if steps_done == 3:
            raise KeyboardInterrupt

    trainer = Trainer(ToyStage(), toy_config(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(interrupt)
    assert latest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_00000003"
    train(tmp_path, "resume=true")
    train(tmp_path / "whole")
    assert_same(tmp_path, tmp_path / "whole")


def test_more_steps_can_be_asked_for(tmp_path: Path) -> None:
    train(tmp_path, "final_lr=1")
    train(tmp_path, "final_lr=1", "resume=true", "max_steps=8")
    train(tmp_path / "whole", "final_lr=1", "max_steps=8")
    assert_same(tmp_path, tmp_path / "whole")


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    train(tmp_path, "max_steps=1")
    with pytest.raises(InputError, match=r"holds a run \(step_00000001\): want resume"):
        train(tmp_path)


def test_resume_refuses_another_model(tmp_path: Path) -> None:
    train(tmp_path, "max_steps=1")
    stage = ToyStage()
    stage.critic = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 4))
    with pytest.raises(CheckpointMismatch, match=r"critic\.safetensors: .*want \[7"):
        Trainer(stage, toy_config(tmp_path, ["resume=true"]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_steps=0", "max_steps=0: want at least 1"),
        ("ema_decay=1.5", "ema_decay=1.5: want 0 to 1"),
        ("clip_norm=nan", "clip_norm=nan: want more than 0"),
        ("dtype=float16", "want one of float32, bfloat16 for dtype"),
    ],
)
def test_config_errors(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy_config(tmp_path, [setting])
