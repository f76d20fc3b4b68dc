"""A run's results where the package looks for its weights, by the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.cli.main import main
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.identify import stored_config
from inspatio_sim.geometry.depth_network import load_depth_network
from inspatio_sim.training.engine import run as engine_run
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.results import find_result, steps_of
from inspatio_sim.training.star.build import STAR

NAMES = {
    "codec": "test_codec.safetensors",
    "depth": "test_depth.safetensors",
    "teacher": "test_teacher.safetensors",
    "distill": "test.safetensors",
}


def ship(run, *options):
    return main(["train", "star/ship", "--config", "test", "--out", str(run), *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """All that ships, trained for two steps."""
    folder = tmp_path_factory.mktemp("run")
    for stage in NAMES:
        assert main(["train", STAR.stages[stage].key, "--config", "test", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_transformers_in_bfloat16_the_others_as_they_are(run, tmp_path, capsys):
    target = tmp_path / "deep" / "weights"
    assert ship(run, "--to", str(target), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == dict.fromkeys(["codec", "depth", "teacher", "student"], 2)
    assert sorted(path.name for path in target.iterdir()) == sorted(NAMES.values())
    for stage, name in NAMES.items():
        result, shipped = load_file(run / stage / name), load_file(target / name)
        assert result.keys() == shipped.keys()
        for key, tensor in shipped.items():
            dtype = torch.bfloat16 if stage in ("teacher", "distill") else result[key].dtype
            assert tensor.dtype == dtype
            assert torch.equal(tensor, result[key].to(dtype))
        assert steps_of(target / name) == 2
    with open_checkpoint(target / NAMES["distill"]) as student:
        notes = student.metadata
        assert (notes["config"], notes["stage"], notes["steps"], notes["seed"]) == ("test", "distill", "2", "0")
        assert stored_config(student) == run_config(STAR, "test", "distill").star
    assert load_depth_network(target / NAMES["depth"]).config == run_config(STAR, "test", "depth").depth.network
    assert str(run).encode() not in b"".join(path.read_bytes() for path in target.iterdir())


def test_what_ships_is_enough_to_distil_again(run, tmp_path, monkeypatch):
    """As on a fresh clone: no run, the package's weights, no text-to-video teacher."""
    monkeypatch.setattr(find, "SHIPPED", tmp_path / "shipped")
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)
    assert ship(run) == 0
    config = run_config(STAR, "test", "distill", out=tmp_path / "fresh")
    for stage, name in (("codec", "codec"), ("teacher", "teacher"), ("init", "distill")):
        assert find_result(STAR, config, stage).path == tmp_path / "shipped" / "test" / NAMES[name]
    again = ["train", "star/distill", "--config", "test", "--out", str(tmp_path / "fresh"), "--quiet"]
    assert main([*again, "--set", "random_stand_ins=false"]) == 0


def test_the_student_may_be_that_of_init(run, tmp_path):
    assert main(["train", "star/init", "--config", "test", "--out", str(run), "--quiet"]) == 0
    assert ship(run, "--to", str(tmp_path), "--set", "student=init") == 0
    result, shipped = load_file(run / "init/test_init.safetensors"), load_file(tmp_path / NAMES["distill"])
    assert all(torch.equal(tensor, result[key].bfloat16()) for key, tensor in shipped.items())


def test_twice_is_the_same_and_other_files_stay(run, tmp_path):
    assert ship(run, "--to", str(tmp_path)) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "README.md").write_text("notes")
    assert ship(run, "--to", str(tmp_path)) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {**first, "README.md": b"notes"}


def test_nothing_is_replaced_before_all_is_written(run, tmp_path, monkeypatch):
    """The last file cannot be written: those before it do not appear either."""
    assert ship(run, "--to", str(tmp_path)) == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    convert = engine_run.convert

    def full_at_the_student(source, preset, out, **options):
        if source.name == NAMES["distill"]:
            raise InputError("disk full")
        return convert(source, preset, out, **options)

    monkeypatch.setattr(engine_run, "convert", full_at_the_student)
    assert ship(run, "--to", str(tmp_path)) == 2
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_stage_that_was_not_run_is_named(run, tmp_path, capsys):
    missing = run / "depth" / NAMES["depth"]
    with replacing(tmp_path / "aside") as aside:
        missing.rename(aside)
    try:
        assert ship(run, "--to", str(tmp_path / "to")) == 2
    finally:
        (tmp_path / "aside").rename(missing)
    assert f"run inspatio-sim train depth/train --config test --out {run} first" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
