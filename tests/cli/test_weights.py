"""`inspatio-sim weights` as a user meets it: what is here, what is damaged, conversion, mistakes in one line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspatio_sim.cli.main import main
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.frame_config import FrameConfig, frame_xl
from inspatio_sim.generators.presets.registry import PRESETS, frame_preset, star_preset
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import star_1_3b, star_tiny
from tests.checkpoints.small import write_hollow

V1 = "InSpatio-World-1.3B.safetensors"


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path_factory) -> None:
    """A package without weights, and no folder named."""
    monkeypatch.setattr(find, "SHIPPED", tmp_path_factory.mktemp("shipped"))
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def tiny_pth(tmp_path_factory) -> Path:
    """Random weights of the tiny model, as training code would save them."""
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(star_tiny())
    weights = {f"model.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("trained") / "last.pth"
    torch.save({"generator": weights, "step": 3}, path)
    return path


def run(capsys, *arguments: object) -> tuple[int, dict]:
    code = main(["weights", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, json.loads(captured.out)


def refused(capsys, *arguments: object) -> str:
    assert main(["weights", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("inspatio-sim: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_list_tells_found_from_missing(tmp_path, capsys):
    transformer = write_hollow(tmp_path / "InSpatio-World-1.3B" / V1, expected_shapes(star_1_3b()))
    code, report = run(capsys, "list", "--weights", tmp_path)
    assert code == 0
    presets = {preset["name"]: preset for preset in report["presets"]}
    assert presets.keys() == PRESETS.keys()
    files = {file["role"]: file for file in presets["inspatio-1.3b"]["files"]}
    assert files["transformer"]["path"] == str(transformer)
    assert files["codec"]["path"] is None
    assert files["codec"]["licence"] == "MIT"
    assert not presets["inspatio-1.3b"]["ok"]
    write_hollow(tmp_path / "taew2_1.safetensors", {"x": (1,)})
    _, report = run(capsys, "list", "--weights", tmp_path)
    assert [preset["name"] for preset in report["presets"] if preset["ok"]] == ["inspatio-1.3b"]


def test_list_as_tables_names_everything(capsys):
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    for preset in PRESETS.values():
        assert preset.name in shown
    assert "licence: MIT" in " ".join(shown.split())


def test_list_takes_the_folder_of_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INSPATIO_WEIGHTS", str(tmp_path))
    assert run(capsys, "list")[1]["folders"][0] == str(tmp_path)


def test_check_says_what_a_folder_holds(tmp_path, capsys):
    shapes = {f"model.{name}": shape for name, shape in expected_shapes(star_1_3b()).items()}
    path = write_hollow(tmp_path / "a" / "b" / V1, shapes)
    write_hollow(
        tmp_path / "taew2_1.safetensors", {"decoder.1.weight": (256, 16, 3, 3), "decoder.22.weight": (3, 64, 3, 3)}
    )
    code, report = run(capsys, "check", tmp_path, "--preset", "inspatio-1.3b")
    assert code == 0
    codec, transformer = sorted(report["checkpoints"], key=lambda found: found["num_tensors"])
    assert transformer["files"] == [str(path)]
    assert transformer["presets"][0] == "inspatio-1.3b"
    assert transformer["num_parameters"] == 1_419_119_680
    assert transformer["dtypes"] == {"float32": len(shapes)}
    assert "huggingface.co/inspatio/world" in transformer["publication"]
    assert "not stated for the weights" in transformer["licence"]
    assert (codec["licence"], codec["problem"]) == ("MIT", None)
    assert main(["weights", "check", str(tmp_path), "--preset", "inspatio-1.3b"]) == 0
    assert "inspatio-1.3b" in capsys.readouterr().out
    code, report = run(capsys, "check", tmp_path, "--preset", "tiny")
    assert code == 1
    assert not report["preset"]["ok"]


def test_check_finds_damage_file_by_file(tmp_path, capsys):
    save_file({"x": torch.ones(3)}, tmp_path / "good.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:-1])
    save_file({"x": torch.ones(3, dtype=torch.int64)}, tmp_path / "whole.safetensors")
    code, report = run(capsys, "check", tmp_path)
    assert code == 1
    problems = {Path(found["path"]).name: found["problem"] for found in report["checkpoints"]}
    assert problems["good.safetensors"] is None
    assert "damaged" in problems["cut.safetensors"]
    assert "int64" in problems["whole.safetensors"]
    assert main(["weights", "check", str(tmp_path)]) == 1
    assert "damaged" in capsys.readouterr().out


def test_check_reads_the_numbers_only_when_asked(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.tensor([1.0, float("nan")])}, path)
    code, report = run(capsys, "check", path)
    assert code == 0
    assert report["checkpoints"][0]["sha256"] == {}
    code, report = run(capsys, "check", path, "--deep")
    assert code == 1
    assert "x holds NaN" in report["checkpoints"][0]["problem"]
    save_file({"x": torch.ones(2)}, path)
    code, report = run(capsys, "check", path, "--deep")
    assert code == 0
    assert report["checkpoints"][0]["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert main(["weights", "check", str(path), "--deep", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys):
    path = tmp_path / "[red]" / "[b].safetensors"
    path.parent.mkdir()
    save_file({"x": torch.ones(1)}, path)
    assert main(["weights", "check", str(path.parent), "--deep"]) == 0
    assert "[b].safetensors" in "".join(capsys.readouterr().out.split())


def test_a_folder_without_all_its_files_is_said_with_the_command(tmp_path, capsys):
    write_hollow(tmp_path / "worldfm_1-step.safetensors", expected_shapes(frame_xl()))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    code, report = run(capsys, "check", tmp_path, "--preset", "worldfm-1step")
    assert code == 1
    assert report["checkpoints"][0]["presets"][0] == "worldfm-1step"
    transformer, codec = report["preset"]["files"]
    assert transformer["path"]
    assert codec["problem"] == f"{tmp_path / 'vae'} lacks diffusion_pytorch_model.safetensors"
    assert main(["weights", "check", str(tmp_path), "--preset", "worldfm-1step"]) == 1
    shown = "".join(capsys.readouterr().out.split())
    assert "lacksdiffusion_pytorch_model.safetensors" in shown
    assert "hfdownloadinspatio/worldfm--include'vae/*'" in shown
    write_hollow(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"x": (1,)})
    assert run(capsys, "check", tmp_path, "--preset", "worldfm-1step")[0] == 0


def test_a_published_frame_model_is_converted_once(tmp_path, capsys, monkeypatch):
    frame = FrameConfig(input_size=8, hidden_size=48, depth=2, num_heads=4, model_max_length=3, caption_channels=16)
    small = replace(frame_preset("worldfm-2step"), frame=frame)
    monkeypatch.setitem(PRESETS, "worldfm-2step", small)  # at a size that a test can convert
    weights = {name: torch.randn(shape) for name, shape in expected_shapes(frame).items()}
    torch.save({"state_dict": weights}, tmp_path / "worldfm_2-step.pth")
    out = tmp_path / "worldfm-2step.safetensors"
    code, report = run(capsys, "convert", tmp_path / "worldfm_2-step.pth", "--to", "worldfm-2step", "--out", out)
    assert code == 0
    assert report["notes"]["preset"] == "worldfm-2step"
    assert report["notes"]["publication"] == "arXiv:2603.11911"
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file(out).items())
    assert "it is a frame transformer of WorldFM: width 48, 2 layers" in refused(
        capsys, "convert", out, "--to", "tiny", "--out", tmp_path / "tiny.safetensors"
    )


def test_convert_then_check_then_find(tiny_pth, tmp_path, capsys):
    out = tmp_path / "weights" / "tiny.safetensors"
    code, report = run(capsys, "convert", tiny_pth, "--to", "tiny", "--out", out, "--dtype", "bf16")
    assert code == 0
    assert report["notes"]["changes"] == "prefix model. taken off; cast to bfloat16"
    assert report["notes"]["source_file"] == "last.pth"
    written = load_file(out)
    original = torch.load(tiny_pth, weights_only=True)["generator"]
    assert {name: tensor.shape for name, tensor in written.items()} == expected_shapes(star_tiny())
    assert all(torch.equal(tensor, original[f"model.{name}"].bfloat16()) for name, tensor in written.items())
    code, report = run(capsys, "check", out.parent)
    assert code == 0
    assert report["checkpoints"][0]["presets"] == ["tiny"]
    assert report["checkpoints"][0]["licence"] == "Apache-2.0"
    _, report = run(capsys, "list", "--weights", out.parent)
    assert report["presets"][0]["files"][0]["path"] == str(out)
    assert main(["weights", "convert", str(tiny_pth), "--to", "tiny", "--out", str(out)]) == 0  # replaced
    assert "prefix model. taken off" in capsys.readouterr().out
    assert load_file(out)["head.head.bias"].dtype == torch.float32


def test_convert_any_tensors_to_safetensors(tmp_path, capsys):
    torch.save({"x": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    assert run(capsys, "convert", tmp_path / "a.pth", "--to", "as-is", "--out", out)[0] == 0
    assert torch.equal(load_file(out)["x"], torch.ones(2, dtype=torch.bfloat16))


def test_mistakes_are_one_line_and_nothing_is_written(tiny_pth, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert "cannot become inspatio-1.3b: it is a STAR transformer: width 256" in refused(
        capsys, "convert", tiny_pth, "--to", "inspatio-1.3b", "--out", out
    )
    assert "--to big" in refused(capsys, "convert", tiny_pth, "--to", "big", "--out", out)
    assert "ends with .safetensors" in refused(capsys, "convert", tiny_pth, "--to", "tiny", "--out", tmp_path / "o.pth")
    assert "no such file" in refused(capsys, "convert", tmp_path / "no.pth", "--to", "tiny", "--out", out)
    refused(capsys, "convert", tiny_pth, "--to", "tiny", "--out", out, "--dtype", "fp64")
    assert "nowhere" in refused(capsys, "check", tmp_path / "nowhere")
    assert "in its subfolders (two levels)" in refused(capsys, "check", tmp_path)
    assert "'big'" in refused(capsys, "check", tiny_pth.parent, "--preset", "big")
    assert "is not a folder" in refused(capsys, "check", tiny_pth, "--preset", "tiny")
    assert "nowhere" in refused(capsys, "list", "--weights", tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_base_is_widened_from_the_command_line(tmp_path, capsys, monkeypatch):
    star = replace(star_tiny(), in_channels=36, out_channels=16)
    small = replace(star_preset("wan-t2v-1.3b"), star=star)
    monkeypatch.setitem(PRESETS, "wan-t2v-1.3b", small)  # at a size that a test can convert
    shapes = expected_shapes(replace(star, in_channels=16))
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "base.safetensors")
    out = tmp_path / "wide.safetensors"
    _, report = run(capsys, "convert", tmp_path / "base.safetensors", "--to", "wan-t2v-1.3b", "--out", out)
    assert "16x1x2x2 -> 256x36x1x2x2" in report["notes"]["changes"]
    assert load_file(out)["patch_embedding.weight"].shape == (256, 36, 1, 2, 2)


@pytest.mark.parametrize("action", ["", "list", "check", "convert"])
def test_help_is_there(capsys, action):
    with pytest.raises(SystemExit) as stop:
        main(["weights", *([action] if action else []), "--help"])
    assert stop.value.code == 0
    assert "weights" in capsys.readouterr().out
