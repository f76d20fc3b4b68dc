"""The doctor's findings: weights by their config, missing things by name."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inspatio_sim import kernels
from inspatio_sim.cli import doctor
from inspatio_sim.cli.main import main
from inspatio_sim.clips import video
from inspatio_sim.clips.video import read_clip
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.frame_config import frame_tiny, frame_xl
from inspatio_sim.generators.presets.shapes import expected_shapes
from tests.checkpoints.small import write_hollow

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


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
    assert generators["frame"] == {"runs": True, "why": "weights found for frame-tiny"}
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
        assert ("pip install 'inspatio-sim[wan]'" in frame["why"]) != is_there


def test_every_dependency_is_looked_at():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {canonical(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}
    assert names == {canonical(name) for name in doctor.REQUIRED}


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_a_video_is_written_and_read_and_a_kernel_compiled():
    trials = doctor.examine()["trials"]
    assert set(trials) == {"video", "kernels"}
    for trial in trials.values():
        assert trial["runs"], trial


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (lambda *_, **__: (_ for _ in ()).throw(TypeError("av.open() got an unexpected\nargument")), "TypeError: av."),
        (lambda path: read_clip(path, max_frames=2), "wrote a video of shape (3, 96, 160, 3), read (2, 96, 160, 3)"),
        (lambda path: inverted(read_clip(path)), "want at most 4"),
    ],
)
def test_videos_that_cannot_be_used_fail_the_doctor(breaks, reason: str, monkeypatch, capsys):
    monkeypatch.setattr(video, "read_clip", breaks)
    assert main(["doctor", "--json"]) == 1
    trial = json.loads(capsys.readouterr().out)["trials"]["video"]
    assert not trial["runs"]
    assert reason in trial["why"]
    assert "\n" not in trial["why"]


def inverted(clip: video.Clip) -> video.Clip:
    return dataclasses.replace(clip, frames_u8=255 - clip.frames_u8)


def test_a_kernel_that_computes_nonsense_fails_the_doctor(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "kernel", lambda function: lambda values: 15.0)
    assert main(["doctor", "--json"]) == 1
    trial = json.loads(capsys.readouterr().out)["trials"]["kernels"]
    assert trial == {"runs": False, "why": "a kernel returned 15.0: want 14.0"}


def with_broken(modules: tuple[str, ...], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process where these modules do not import, as for want of a system library."""
    for module in modules:
        (folder / f"{module}.py").write_text("raise ImportError('libnowhere.so.9: cannot open shared object file')\n")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from inspatio_sim.cli.main import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_packages_that_do_not_import_are_findings(tmp_path):
    done = with_broken(("torch", "av", "numba"), tmp_path, "doctor", "--json")
    assert done.returncode == 1, done.stderr
    health = json.loads(done.stdout)
    assert {"torch", "av", "numba"} <= set(health["broken"])
    assert health["broken"]["av"] == "ImportError: libnowhere.so.9: cannot open shared object file"
    assert not any(entry["runs"] for entry in (*health["trials"].values(), *health["generators"].values()))
    assert health["devices"][-1]["device"] == "cpu"


def test_other_commands_name_the_package_that_does_not_import(tmp_path):
    done = with_broken(("av",), tmp_path, "demo", "--out", str(tmp_path / "demo"))
    assert done.returncode == 2
    assert done.stderr.startswith("inspatio-sim: error: libnowhere.so.9: cannot open")
    assert done.stderr.count("\n") == 1
    assert "inspatio-sim doctor" in done.stderr


def test_advice_reaches_the_terminal_as_it_is_typed(monkeypatch, capsys):
    present = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "transformers" else present(name)
    )
    main(["doctor"])
    assert "pip install 'inspatio-sim[depth]'" in capsys.readouterr().out
