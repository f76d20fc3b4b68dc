"""Whole stages of the frame generator from their configs, by the command line as a user has it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.cli import train as command
from inspatio_sim.cli.main import main
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.identify import stored_frame_config
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.training.engine.checkpoint import latest_checkpoint
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.iteration import BatchPlan, Iteration
from inspatio_sim.training.engine.results import Result, find_result, found_result, result_path, steps_of
from inspatio_sim.training.engine.run import build
from inspatio_sim.training.engine.trainer import Trainer, TrainingStopped
from inspatio_sim.training.frame.build import FRAME, FrameInputs
from inspatio_sim.training.frame.cost import frame_stage_cost
from inspatio_sim.training.frame.networks import frame_from, tiny_codec


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path_factory):
    """A package without weights, and no folder named."""
    monkeypatch.setattr(find, "SHIPPED", tmp_path_factory.mktemp("shipped"))
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)


def train(stage, out, *options):
    return main(["train", f"frame/{stage}", "--config", "test", "--out", str(out), "--quiet", *options])


def built(stage, out, *settings, start=None):
    config = run_config(FRAME, "test", stage, out=out, settings=settings)
    return build(FRAME, stage, config, Ranks(), start=start)


class Quiet:
    """An updater that leaves the weights alone, and keeps what is logged."""

    def __init__(self):
        self.logged = {}

    def begin(self, optimiser):
        pass

    def finish(self, optimiser):
        pass

    def note(self, name, value):
        self.logged[name] = value


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """All stages, one after another, from nothing."""
    out = tmp_path_factory.mktemp("run")
    for stage in FRAME.stages:
        assert train(stage, out) == 0
    return out


def test_all_stages_from_nothing(whole_run):
    for stage in FRAME.stages:
        config = run_config(FRAME, "test", stage, out=whole_run)
        path = whole_run / stage / f"frame_test_{stage.replace('-', '_')}.safetensors"
        assert result_path(FRAME, config, stage) == path
        assert steps_of(path) == 2
        network = FrameTransformer(config.frame)
        load_weights(network, path)
        (kept,) = latest_checkpoint(whole_run / stage / "checkpoints").glob("*.ema.safetensors")
        average = load_file(kept)
        assert all(torch.equal(tensor, average[key]) for key, tensor in network.state_dict().items())
        with open_checkpoint(path) as checkpoint:
            assert stored_frame_config(checkpoint) == config.frame
            assert checkpoint.metadata["latent_scale"] == "1.0"
            assert json.loads(checkpoint.metadata["trainer"])["max_steps"] == 2
            assert str(whole_run) not in json.dumps(dict(checkpoint.metadata))
        assert find_result(FRAME, config, stage).kind == "run"
        (sheet,) = (whole_run / stage / "samples").glob("*.png")
        columns = 2 if stage == "pretrain" else 4
        assert Image.open(sheet).size == (columns * 48, 6 * 32)
        assert (whole_run / stage / "metrics.csv").read_text().count("\n") == 3


def test_results_are_where_later_stages_begin(whole_run):
    def same(network, stage):
        found = load_file(whole_run / stage / f"frame_test_{stage}.safetensors")
        return all(torch.equal(tensor, found[name]) for name, tensor in network.state_dict().items())

    assert same(built("control", whole_run).network, "pretrain")
    for stage, begins in (("distill", "control"), ("distill-one", "distill")):
        ready = built(stage, whole_run)
        assert same(ready.student, begins)
        assert same(ready.real, "control")
        assert same(ready.fake, "control")
        assert not any(parameter.requires_grad for parameter in ready.real.parameters())
        networks = (ready.student, ready.fake)
        assert all(parameter.requires_grad for network in networks for parameter in network.parameters())
        pointers = [next(network.parameters()).data_ptr() for network in (*networks, ready.real)]
        assert len(set(pointers)) == 3
    start = whole_run / "distill" / "frame_test_distill.safetensors"
    assert same(built("control", whole_run, start=start).network, "distill")


@pytest.mark.parametrize("stage", ["control", "distill"])
def test_interrupted_and_resumed_is_never_stopped(stage, tmp_path, monkeypatch, capsys):
    steps = ["--set", "trainer.max_steps=5", "trainer.sample_every=0", "distill.critic_updates=2"]
    assert train(stage, tmp_path / "whole", *steps) == 0
    as_before = command.training_progress

    @contextmanager
    def with_ctrl_c(terminal, what):
        def show(steps_done, max_steps, newest):
            if steps_done == 3:
                os.kill(os.getpid(), signal.SIGINT)

        yield show

    monkeypatch.setattr(command, "training_progress", with_ctrl_c)
    assert train(stage, tmp_path / "parts", *steps) == 130
    assert "holds step 3; --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(command, "training_progress", as_before)
    assert train(stage, tmp_path / "parts", *steps) == 2
    assert "want resume" in capsys.readouterr().err
    assert train(stage, tmp_path / "parts", *steps, "--resume") == 0
    whole, parts = (tmp_path / name / stage / f"frame_test_{stage}.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    last = (latest_checkpoint(path.parent / "checkpoints") for path in (whole, parts))
    for mine, others in zip(*(sorted(folder.glob("*.safetensors")) for folder in last), strict=True):
        assert mine.read_bytes() == others.read_bytes(), mine.name
    assert train(stage, tmp_path / "parts", *steps, "--resume") == 0
    assert whole.read_bytes() == parts.read_bytes()


def test_learning_what_a_frame_is_made_from(tmp_path):
    """A few steps on two clips bring the error down far below that of a guess."""
    settings = ["trainer.max_steps=60", "trainer.sample_every=0", "trainer.batch_size=4", "diffusion.few_step_share=1"]
    ready = built("control", tmp_path, *settings)
    trainer = Trainer(ready, run_config(FRAME, "test", "control", out=tmp_path, settings=settings).trainer)
    losses = {}
    trainer.run(lambda done, total, newest: losses.update({done: newest.get("loss_from_noise")}))
    first = [losses[i] for i in range(1, 10) if losses[i] is not None]
    last = [losses[i] for i in range(52, 61) if losses[i] is not None]
    assert sum(last) / len(last) < 0.6 * sum(first) / len(first)


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    settings = ["trainer.max_steps=4", "trainer.checkpoint_every=1", "trainer.sample_every=0"]
    ready = built("distill", tmp_path, *settings)
    trainer = Trainer(ready, run_config(FRAME, "test", "distill", out=tmp_path, settings=settings).trainer)

    def spoil(done, total, newest):
        if done == 2:
            with torch.no_grad():
                ready.fake.final_layer.linear.weight.fill_(float("nan"))

    with pytest.raises(TrainingStopped, match="step 3: gradient of critic is NaN or infinite"):
        trainer.run(spoil)
    assert latest_checkpoint(tmp_path / "distill" / "checkpoints").name == "step_00000002"


def test_the_critic_is_trained_more_often(tmp_path):
    ready = built("distill", tmp_path, "distill.critic_updates=3", "trainer.sample_every=0")
    for step_idx in range(6):
        quiet = Quiet()
        ready.step(Iteration(step_idx, BatchPlan(seed=0, batch_size=2, accumulate=1), Ranks(), quiet))
        assert "critic" in quiet.logged
        assert ("gradient" in quiet.logged) == (step_idx % 3 == 2)
    assert ready.state() == {"num_critic_updates": 6}


@pytest.mark.parametrize("stage", FRAME.stages)
def test_operations_are_those_that_are_run(stage, tmp_path):
    """Of a mean step: over exit steps, and updates of the student, for a distillation."""
    settings = ["trainer.sample_every=0", "frame.hidden_size=64", "frame.depth=3", "trainer.batch_size=1"]
    config = run_config(FRAME, "test", stage, out=tmp_path, settings=settings)
    ready = build(FRAME, stage, config, Ranks())
    data = ready.frames(list(range(1)))
    ready.frames = lambda samples: data
    num_steps = 12 if stage.startswith("distill") else 1
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for step_idx in range(num_steps):
            ready.step(Iteration(step_idx, BatchPlan(seed=0, batch_size=1, accumulate=1), Ranks(), Quiet()))
    counted = counter.get_total_flops() / num_steps
    expected = frame_stage_cost(stage, config).flop_per_sample
    assert expected == pytest.approx(counted, rel=0.15 if stage == "distill" else 0.1)


def test_a_dry_run_counts_and_does_nothing(tmp_path, capsys):
    arguments = ["--config", "tiny", "--out", str(tmp_path), "--dry-run", "--json"]
    assert main(["train", "frame/distill", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    size = sum(
        parameter.numel() for parameter in FrameTransformer(run_config(FRAME, "tiny", "distill").frame).parameters()
    )
    assert [network["name"] for network in report["networks"]] == ["frame", "critic", "teacher"]
    assert {network["num_parameters"] for network in report["networks"]} == {size}
    assert [network["optimiser"] for network in report["networks"]] == [8 * size, 8 * size, 0]
    assert report["earlier"] == {"control": None}
    assert report["flop_per_run"] == pytest.approx(report["flop_per_step"] * report["steps"])
    for stage in FRAME.stages:
        published = ["train", f"frame/{stage}", "--config", "worldfm-xl", "--out", str(tmp_path), "--dry-run"]
        assert main(published) == 0
        assert "frame, trained" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_line(tmp_path, capsys):
    wanted = [
        (["frame/control", "--config", "frame-tiny"], "--config frame-tiny: want one of tiny, test, worldfm-xl"),
        (["frame/control", "--config", "tiny", "--to", "x"], "want train star/ship or frame/ship"),
        (["frame/control", "--config", "test", "--from", "nowhere"], "no such file"),
        (
            ["frame/control", "--config", "tiny", "--out", str(tmp_path)],
            f"run inspatio-sim train frame/pretrain --config tiny --out {tmp_path} first",
        ),
        (["frame/pretrain", "--config", "tiny", "--out", str(tmp_path)], "train star/ship --config tiny"),
        (["frame/ship", "--config", "tiny", "--out", str(tmp_path)], "train frame/distill --config tiny"),
        (["frame/ship", "--config", "tiny", "--dry-run"], "want a stage that trains"),
    ]
    for arguments, message in wanted:
        assert main(["train", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    with pytest.raises(InputError, match=r"no image codec: .*config\.json.* name the folder in INSPATIO_WEIGHTS"):
        FrameInputs(family=FRAME, config=run_config(FRAME, "worldfm-xl", "pretrain"), ranks=Ranks()).codec  # noqa: B018


def test_what_ships_is_in_bfloat16_and_enough_to_distil_again(whole_run, tmp_path, capsys):
    ship = ["train", "frame/ship", "--config", "test", "--out", str(whole_run)]
    assert main([*ship, "--to", str(tmp_path / "there"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    path = tmp_path / "there" / "frame_test.safetensors"
    assert (report["files"], report["steps"]) == ({"student": str(path)}, {"student": 2})
    shipped, result = load_file(path), load_file(whole_run / "distill" / "frame_test_distill.safetensors")
    assert all(torch.equal(tensor, result[name].bfloat16()) for name, tensor in shipped.items())
    with open_checkpoint(path) as checkpoint:
        assert stored_frame_config(checkpoint) == run_config(FRAME, "test", "distill").frame
        assert checkpoint.metadata["stage"] == "distill"
    assert main([*ship, "--to", str(tmp_path / "one"), "--set", "student=distill-one"]) == 0
    one = load_file(tmp_path / "one" / "frame_test.safetensors")
    result = load_file(whole_run / "distill-one" / "frame_test_distill_one.safetensors")
    assert all(torch.equal(tensor, result[name].bfloat16()) for name, tensor in one.items())

    config = run_config(FRAME, "test", "distill", out=tmp_path / "new", settings=["random_stand_ins=false"])
    assert find_result(FRAME, config, "control") is None
    shutil.copytree(tmp_path / "there", find.SHIPPED / "frame-test")
    assert find_result(FRAME, config, "control").kind == "shipped"
    begun = frame_from(config, found_result(FRAME, config, "control")).state_dict()
    assert all(torch.equal(tensor, shipped[name].float()) for name, tensor in begun.items())
    wider = run_config(FRAME, "test", "distill", out=tmp_path / "new", settings=["frame.depth=3"])
    assert find_result(FRAME, wider, "control").kind == "random"


def test_the_codec_is_that_of_the_video_model(tmp_path):
    config = run_config(FRAME, "test", "control", settings=["random_stand_ins=false"])
    codec = tiny_codec(run_config(FRAME, "test", "control"))
    shipped = find.SHIPPED / "tiny" / "tiny_codec.safetensors"
    shipped.parent.mkdir()
    moved = {name: tensor + 1 for name, tensor in codec.state_dict().items()}
    save_file(moved, shipped)
    assert all(torch.equal(tensor, moved[name]) for name, tensor in tiny_codec(config).state_dict().items())


def test_the_same_seed_is_the_same_network():
    random = Result(stage="pretrain", kind="random", path=None)
    first, again, other = (
        frame_from(run_config(FRAME, "test", "pretrain", settings=[f"seed={seed}"]), random).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["control", "distill"])
def test_two_ranks_are_one(stage, tmp_path):
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for prefix, name, batch in ((ranks, "two", 1), ([sys.executable], "one", 2)):
        done = subprocess.run(
            [*prefix, "-m", "inspatio_sim.training", f"frame/{stage}", "--config", "test", "--out",
             str(tmp_path / name), "--set", f"trainer.batch_size={batch}", "trainer.sample_every=0"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / stage / f"frame_test_{stage}.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_compiled_and_recomputed_is_the_same(tmp_path):
    for name, setting in (("plain", []), ("made", ["compile=true", "checkpoint_activations=true"])):
        options = ["--set", "trainer.sample_every=0", *setting]
        assert train("distill", tmp_path / name, *options) == 0
    plain, made = (
        load_file(tmp_path / name / "distill" / "frame_test_distill.safetensors") for name in ("plain", "made")
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
