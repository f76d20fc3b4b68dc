"""The doctor's findings: weights by their config, missing things by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspatio_sim.cli import doctor
from inspatio_sim.cli.main import main
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.frame_config import frame_tiny, frame_xl
from inspatio_sim.generators.presets.shapes import expected_shapes
from tests.checkpoints.small import write_hollow


def make_model(folder: Path, config: object, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / weights).write_bytes(b"")
    return folder


def test_depth_models_are_found_by_their_config(tmp_path):
    hf = make_model(tmp_path / "depth-anything", {"architectures": ["DepthAnythingForDepthEstimation"]})
    da3 = make_model(tmp_path / "hub" / "da3", {"model_name": "da3-small"})
    make_model(tmp_path / "language", {"architectures": ["BertModel"]})
    make_model(tmp_path / "broken", "{not json")
    make_model(tmp_path / "no-weights", {"model_name": "da3-large"}, weights="readme.txt")
    assert doctor.find_weights(tmp_path) == [
        {"method": "hf", "folder": str(hf), "model": "DepthAnythingForDepthEstimation"},
        {"method": "da3", "folder": str(da3), "model": "da3-small"},
    ]


def test_hf_runs_only_with_weights(tmp_path):
    pytest.importorskip("transformers")
    assert not doctor.examine(tmp_path)["methods"]["hf"]["runs"]
    folder = make_model(tmp_path / "model", {"architectures": ["DPTForDepthEstimation"]})
    hf = doctor.examine(tmp_path)["methods"]["hf"]
    assert hf["runs"]
    assert str(folder) in hf["why"]


def test_missing_libraries_come_with_the_command_that_installs_them(monkeypatch):
    present = doctor.OPEN3D_LIBRARIES
    monkeypatch.setattr(doctor, "OPEN3D_LIBRARIES", {**present, "libnowhere.so.9": "libnowhere9"})
    libraries = doctor.examine()["system_libraries"]
    assert "libnowhere.so.9" in libraries["missing"]
    assert libraries["install"].startswith("sudo apt-get install -y ")
    assert "libnowhere9" in libraries["install"].split()


def test_json_is_one_object_on_stdout(capsys):
    code = main(["doctor", "--json"])
    health = json.loads(capsys.readouterr().out)
    assert code == (0 if health["ok"] else 1)
    assert health["machine"]["cores"] >= 1
    assert health["generators"]["warp"]["runs"]
    assert health["packages"]["torch"].startswith("2.")


def test_tables_name_every_method(capsys):
    main(["doctor"])
    shown = capsys.readouterr().out
    for name in ("rgbd", "sfm", "da3", "hf", "layout", "warp", "open3d"):
        assert name in shown


def test_weights_folder_from_the_environment(monkeypatch, capsys, tmp_path):
    make_model(tmp_path / "model", {"model_name": "da3-base"})
    monkeypatch.setenv("INSPATIO_WEIGHTS", str(tmp_path))
    main(["doctor", "--json"])
    assert [entry["model"] for entry in json.loads(capsys.readouterr().out)["weights"]["found"]] == ["da3-base"]


def test_a_weights_folder_that_is_not_there_is_one_line(capsys, tmp_path):
    assert main(["doctor", "--weights", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("inspatio-sim: error: ")
    assert error.count("\n") == 1
    assert "nowhere" in error


def test_each_generator_names_the_models_that_it_could_run(monkeypatch, tmp_path):
    monkeypatch.setattr(find, "SHIPPED", tmp_path / "nothing")
    generators = doctor.examine(tmp_path)["generators"]
    for name in ("star", "frame"):
        assert not generators[name]["runs"]
        assert "inspatio-sim weights list" in generators[name]["why"]
    write_hollow(tmp_path / "tiny_codec.safetensors", {"x": (1,)})
    write_hollow(tmp_path / "frame_tiny.safetensors", expected_shapes(frame_tiny()))
    generators = doctor.examine(tmp_path)["generators"]
    assert generators["frame"] == {"runs": True, "why": "weights found of frame-tiny"}
    assert not generators["star"]["runs"]


def test_published_frame_models_need_diffusers(monkeypatch, tmp_path):
    monkeypatch.setattr(find, "SHIPPED", tmp_path / "nothing")
    write_hollow(tmp_path / "worldfm_1-step.safetensors", expected_shapes(frame_xl()))
    make_model(tmp_path / "vae", {"_class_name": "AutoencoderKL"}, weights="diffusion_pytorch_model.safetensors")
    present = doctor.importlib.util.find_spec
    for is_there in (True, False):
        monkeypatch.setattr(
            doctor.importlib.util,
            "find_spec",
            lambda name, there=is_there: (object() if there else None) if name == "diffusers" else present(name),
        )
        frame = doctor.examine(tmp_path)["generators"]["frame"]
        assert frame["runs"] == is_there
        assert "worldfm-1step" in frame["why"]
        assert ("pip install -e '.[wan]'" in frame["why"]) != is_there
