"""Whole stages from their configs, by the command line as a user has it."""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from inspatio_sim.cli import train as command
from inspatio_sim.cli.main import main
from inspatio_sim.codecs import TinyAutoencoder
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.engine.checkpoint import latest_checkpoint, load_numbers
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.iteration import BatchPlan, Iteration
from inspatio_sim.training.engine.results import find_result, found_result, result_path, steps_of
from inspatio_sim.training.engine.run import build
from inspatio_sim.training.star.build import STAR
from inspatio_sim.training.star.cost import stage_cost
from inspatio_sim.training.star.networks import codec_from
from inspatio_sim.training.star.prepare import open_latents, prepare

RESULTS = {
    "codec": "test_codec",
    "teacher": "test_teacher",
    "t2v-teacher": "test_t2v_teacher",
    "init": "test_init",
    "distill": "test",
}


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path_factory):
    """A package without weights, and no folder named."""
    monkeypatch.setattr(find, "SHIPPED", tmp_path_factory.mktemp("shipped"))
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)


def train(stage, out, *options):
    return main(["train", STAR.stages[stage].key, "--config", "test", "--out", str(out), "--quiet", *options])


def built(stage, out, *settings, start=None):
    config = run_config(STAR, "test", stage, out=out, settings=settings)
    return build(STAR, stage, config, Ranks(), start=start)


class Quiet:
    """An updater that leaves the weights alone."""

    def begin(self, optimiser):
        pass

    def finish(self, optimiser):
        pass

    def note(self, name, value):
        pass


def test_all_stages_from_nothing(tmp_path, capsys):
    for stage, name in RESULTS.items():
        assert train(stage, tmp_path) == 0, capsys.readouterr().err
        config = run_config(STAR, "test", stage, out=tmp_path)
        path = tmp_path / stage / f"{name}.safetensors"
        assert result_path(STAR, config, stage) == path
        network = TinyAutoencoder(config.codec) if stage == "codec" else StarTransformer(config.star)
        load_weights(network, path)
        (kept,) = latest_checkpoint(tmp_path / stage / "checkpoints").glob("*.ema.safetensors")
        average = load_file(kept)
        assert all(torch.equal(tensor, average[key]) for key, tensor in network.state_dict().items())
        assert list((tmp_path / stage / "samples").glob("*.png"))
        assert find_result(STAR, config, stage).kind == "run"


def test_a_finished_stage_is_left_as_it_is(tmp_path, capsys):
    for stage in ("codec", "depth"):
        assert train(stage, tmp_path) == 0
        path = tmp_path / stage / f"test_{stage}.safetensors"
        written = path.stat().st_mtime_ns
        again = ["train", STAR.stages[stage].key, "--config", "test", "--out", str(tmp_path), "--resume"]
        assert main(again) == 0
        assert f"test {stage}/train: finished before, after 2 steps" in capsys.readouterr().out
        assert path.stat().st_mtime_ns == written
        assert main([*again, "--json", "--set", "trainer.max_steps=3"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == steps_of(path) == 3
        assert path.stat().st_mtime_ns > written


def test_a_result_does_not_say_where_it_was_made(tmp_path):
    for name in ("here", "there"):
        assert train("codec", tmp_path / name) == 0
    here, there = (tmp_path / name / "codec" / "test_codec.safetensors" for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
    assert str(tmp_path).encode() not in here.read_bytes()


def test_distillation_does_without_a_t2v_teacher(tmp_path, capsys, caplog):
    alone = ["--set", "random_stand_ins=false"]
    assert train("distill", tmp_path, *alone) == 2
    assert "run inspatio-sim train codec/train" in capsys.readouterr().err
    for stage in ("codec", "teacher", "init"):
        assert train(stage, tmp_path, *alone) == 0
    with caplog.at_level(logging.WARNING):
        assert train("distill", tmp_path, *alone) == 0
    (line,) = [record.getMessage() for record in caplog.records if "was not run" not in record.getMessage()]
    assert "no text-to-video teacher: clips along paths alone are distilled" in line
    assert f"run inspatio-sim train star/t2v-teacher --config test --out {tmp_path} first" in line
    checkpoint = latest_checkpoint(tmp_path / "distill" / "checkpoints")
    assert load_numbers(checkpoint)["settings"]["t2v_weight"] == 0
    assert not (checkpoint / "critic_t2v.safetensors").exists()
    assert (
        main(["train", "star/distill", "--config", "test", "--out", str(tmp_path), "--dry-run", "--json", *alone]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert [network["name"] for network in report["networks"]] == ["student", "critic_v2v", "teacher_v2v"]
    assert "t2v-teacher" not in report["earlier"]


def test_results_are_where_later_stages_begin(tmp_path, capsys):
    assert train("teacher", tmp_path) == 0
    taught = load_file(tmp_path / "teacher" / "test_teacher.safetensors")
    student = built("init", tmp_path).student
    assert all(torch.equal(tensor, taught[name]) for name, tensor in student.state_dict().items())
    v2v, t2v = built("distill", tmp_path).tasks
    assert all(torch.equal(tensor, taught[name]) for name, tensor in v2v.real.state_dict().items())
    for task in (v2v, t2v):
        assert not any(parameter.requires_grad for parameter in task.real.parameters())
        assert all(parameter.requires_grad for parameter in task.fake.parameters())
        for real, fake in zip(task.real.parameters(), task.fake.parameters(), strict=True):
            assert torch.equal(real, fake)
            assert real.data_ptr() != fake.data_ptr()
    assert [task.name for task in built("distill", tmp_path, "t2v_weight=0").tasks] == ["v2v"]
    start = tmp_path / "teacher" / "test_teacher.safetensors"
    again = built("teacher", tmp_path, start=start)
    assert all(torch.equal(tensor, taught[name]) for name, tensor in again.teacher.state_dict().items())


def test_interrupted_and_resumed_is_never_stopped(tmp_path, monkeypatch, capsys):
    steps = ["--set", "trainer.max_steps=6", "trainer.sample_every=0"]
    assert train("distill", tmp_path / "whole", *steps) == 0
    at_step_3 = command.training_progress

    @contextmanager
    def with_ctrl_c(terminal, what):
        def show(steps_done, max_steps, newest):
            if steps_done == 3:
                os.kill(os.getpid(), signal.SIGINT)

        yield show

    monkeypatch.setattr(command, "training_progress", with_ctrl_c)
    assert train("distill", tmp_path / "parts", *steps) == 130
    assert "holds step 3; --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(command, "training_progress", at_step_3)
    assert train("distill", tmp_path / "parts", *steps) == 2
    assert "want resume" in capsys.readouterr().err
    assert train("distill", tmp_path / "parts", *steps, "--resume") == 0
    whole, parts = (load_file(tmp_path / name / "distill" / "test.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_clips_are_added_and_remade(tmp_path):
    config = run_config(STAR, "test", "prepare", out=tmp_path, settings=["data.num_clips=8"])
    codec = codec_from(config, found_result(STAR, config, "codec"))
    prepare(config, "photo", codec, num_clips=3)
    folder = tmp_path / "latents" / "photo"
    first = folder / "00000000-00000002" / "shard-00000.safetensors"
    before, rows = first.stat().st_mtime_ns, [open_latents(config, "photo", codec, num_clips=3)[i] for i in range(3)]
    with pytest.raises(InputError, match="clips are missing"):
        open_latents(config, "photo", codec, num_clips=4)
    (folder / "00000002-00000003" / "shard-00000.safetensors").write_bytes(b"cut off")
    shares = []
    prepare(config, "photo", codec, num_clips=5, progress=lambda what, share: shares.append(share))
    assert shares == [0.6, 0.8, 1.0]
    assert first.stat().st_mtime_ns == before
    more = open_latents(config, "photo", codec, num_clips=5)
    assert len(more) == 5
    for i, row in enumerate(rows):
        assert all(torch.equal(tensor, more[i][name]) for name, tensor in row.items())
    assert not torch.equal(more[4]["target"], more[3]["target"])
    assert more[0]["target"].dtype == torch.float16
    assert more[0]["view"].shape == (6, config.star.condition_channels, *config.data.grid)
    other = run_config(STAR, "test", "prepare", out=tmp_path, settings=["data.num_clips=8", "augment.depth_noise=0.1"])
    with pytest.raises(InputError, match="encoded with another codec or other data"):
        prepare(other, "photo", codec, num_clips=3)


def test_prepare_is_a_command(tmp_path, capsys):
    arguments = ["--config", "test", "--out", str(tmp_path), "--set", "data.num_clips=2"]
    assert main(["train", "star/prepare", *arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_clips"] == 2
    assert sorted(path.name for path in (tmp_path / "latents").iterdir()) == ["photo", "synthetic"]


def test_a_dry_run_counts_and_does_nothing(tmp_path, capsys):
    assert main(["train", "star/distill", "--config", "tiny", "--out", str(tmp_path), "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [network["name"] for network in report["networks"] if network["is_trained"]] == [
        "student", "critic_v2v", "critic_t2v",
    ]  # fmt: skip
    config = run_config(STAR, "tiny", "distill")
    size = sum(parameter.numel() for parameter in StarTransformer(config.star).parameters())
    assert {network["num_parameters"] for network in report["networks"]} == {size}
    assert report["networks"][0]["optimiser"] == 8 * size
    assert report["earlier"] == dict.fromkeys(["codec", "teacher", "t2v-teacher", "init"])
    assert report["flop_per_run"] == pytest.approx(report["flop_per_step"] * config.trainer.max_steps)
    assert not list(tmp_path.iterdir())
    for kind in STAR.stages.values():
        assert main(["train", kind.key, "--config", "wan_1_3b", "--out", str(tmp_path), "--dry-run"]) == 0


def test_missing_stages_and_mistakes_are_one_line(tmp_path, capsys):
    wanted = [
        (
            ["star/distill", "--config", "tiny", "--out", str(tmp_path)],
            f"run inspatio-sim train codec/train --config tiny --out {tmp_path} first",
        ),
        (["star/distill", "--config", "wan_1_3b", "--out", str(tmp_path)], "taew2_1.safetensors"),
        (["star/teacher", "--config", "huge"], "--config huge: want one of tiny, test, wan_1_3b"),
        (["star/teacher", "--config", "test", "--from", "nowhere.safetensors"], "no such file"),
        (["star/teacher", "--config", "test", "--threads", "0"], "want at least 1"),
        (["star/teacher", "--config", "test", "--to", "weights"], "want train star/ship"),
        (["star/ship", "--config", "test", "--dry-run"], "want a stage that trains"),
    ]
    for arguments, message in wanted:
        assert main(["train", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_shipped_weights_stand_in_where_they_fit(tmp_path):
    config = run_config(STAR, "test", "distill", out=tmp_path)
    assert find_result(STAR, config, "init").kind == "random"
    shipped = find.SHIPPED / "test" / "test.safetensors"
    shipped.parent.mkdir()
    save_file(StarTransformer(config.star).state_dict(), shipped)
    assert (find_result(STAR, config, "init").kind, find_result(STAR, config, "init").path) == ("shipped", shipped)
    wider = run_config(STAR, "test", "distill", out=tmp_path, settings=["star.ffn_dim=64"])
    assert find_result(STAR, wider, "init").kind == "random"


@pytest.mark.parametrize("stage", ["depth", *RESULTS])
def test_operations_are_those_that_are_run(stage, tmp_path):
    """Of a mean step: over both tasks and all exit steps, for the distillation."""
    settings = ["trainer.sample_every=0", "star.dim=64", "star.ffn_dim=256", "data.pool_clips=2"]
    config = run_config(STAR, "test", stage, out=tmp_path, settings=settings)
    ready = build(STAR, stage, config, Ranks())
    num_steps = 16 if stage == "distill" else 1
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for step_idx in range(num_steps):
            ready.step(Iteration(step_idx, BatchPlan(seed=0, batch_size=1, accumulate=1), Ranks(), Quiet()))
    counted = counter.get_total_flops() / num_steps
    assert stage_cost(stage, config).flop_per_sample == pytest.approx(counted, rel=0.25 if stage == "distill" else 0.1)


def test_activations_are_about_those_that_are_kept(tmp_path):
    config = run_config(
        STAR, "test", "teacher", out=tmp_path, settings=["star.dim=64", "star.ffn_dim=256", "star.num_layers=4"]
    )
    ready = build(STAR, "teacher", config, Ranks())
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    weights = {parameter.data_ptr() for parameter in ready.teacher.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ready.step(Iteration(0, BatchPlan(seed=0, batch_size=1, accumulate=1), Ranks(), Quiet()))
    measured = sum(x.untyped_storage().nbytes() for pointer, x in kept.items() if pointer not in weights)
    assert 0.6 < stage_cost("teacher", config).activation_bytes / measured < 1.6


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["depth", "teacher", "init", "distill"])
def test_two_ranks_are_one(stage, tmp_path):
    """From nothing: one rank encodes, both train."""
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for prefix, name, batch in ((ranks, "two", 1), ([sys.executable], "one", 2)):
        done = subprocess.run(
            [*prefix, "-m", "inspatio_sim.training", STAR.stages[stage].key, "--config", "test", "--out",
             str(tmp_path / name), "--set", "trainer.max_steps=2", f"trainer.batch_size={batch}",
             "trainer.sample_every=0"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (
        load_file(next(latest_checkpoint(tmp_path / name / stage / "checkpoints").glob("*.ema.safetensors")))
        for name in ("one", "two")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_compiled_is_the_same(tmp_path):
    for name in ("false", "true"):
        setting = [
            "--set",
            "trainer.max_steps=1",
            "trainer.sample_every=0",
            "data.num_frames=9",
            "data.crop_frames=9",
            f"compile={name}",
        ]
        assert main(["train", "star/init", "--config", "test", "--out", str(tmp_path / name), *setting, "--quiet"]) == 0
    plain, compiled = (load_file(tmp_path / name / "init" / "test_init.safetensors") for name in ("false", "true"))
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
