"""The wheel, built and installed as a stranger would, runs from another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytest.importorskip("build", reason="package build is missing: pip install 'inspatio-sim[dev]'")

ROOT = Path(__file__).parents[1]
PACKAGES = {"inspatio_sim": ROOT, "inspatio_envs": ROOT / "envs", "inspatio_ros": ROOT / "ros2_ws/src/inspatio_ros"}
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "constraints-cpu.txt")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "install", "log")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source archive and the wheel made from it, both built out of a copy, without a network."""
    copy, dist = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in ("inspatio_sim", "envs", "ros2_ws", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=NOT_COPIED)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, copy, cwd=copy)
    return dist


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    (path,) = archives.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the executables of an environment with the wheel, and of this one all but the package itself."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    scripts = environment / "bin"
    packages = {name: sysconfig.get_path(name, vars={"base": str(environment)}) for name in ("purelib", "platlib")}
    run(sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-deps", "--no-index", wheel)
    others = {sysconfig.get_path(name) for name in packages}
    # Paths in a .pth are plain entries of sys.path: an editable install's own .pth in them is not read.
    (Path(packages["purelib"]) / "others.pth").write_text("\n".join(sorted(others)) + "\n")
    return scripts


@pytest.fixture(scope="module")
def clip(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo room, as the wheel films it."""
    folder = tmp_path_factory.mktemp("clip") / "room"
    code = f"from inspatio_sim.scenes.demo import write_demo_clip as write; write({str(folder)!r}, num_frames=4)"
    run(scripts / "python", "-c", code, cwd=folder.parent)
    return folder


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What the command prints; its environment knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def sources() -> set[str]:
    """Every file of the three packages, as a wheel names them."""
    return {
        str(path.relative_to(root))
        for package, root in PACKAGES.items()
        for path in (root / package).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def test_the_wheel_has_every_module_and_data_file_and_nothing_else(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == sources()
    assert "inspatio_sim/weights/tiny/tiny.safetensors" in inside
    assert "inspatio_sim/weights/frame-tiny/README.md" in inside
    assert "inspatio_ros/fastdds.xml" in inside


def test_the_wheel_says_what_it_is_and_needs(wheel: Path):
    assert wheel.name.endswith("-py3-none-any.whl")
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Name"] == "inspatio-sim"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert {"depth", "wan", "rl", "rllib", "ros", "train", "view", "dev"} == set(metadata.get_all("Provides-Extra", []))
    needs = {re.split(r"[^\w.-]", line)[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert {"torch", "numba", "av", "open3d", "pycolmap", "gymnasium"} <= needs
    scripts = archive.read(f"{info}/entry_points.txt").decode()
    for script in ("inspatio-sim", "inspatio-ros", "inspatio-ros-tf2", "inspatio_scenarios"):
        assert f"{script} = " in scripts


def test_the_source_archive_has_what_colcon_builds_and_no_tests(archives: Path):
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    node = ROOT / "ros2_ws/src/inspatio_ros"
    wanted = {path for kind in ("launch/*.launch.py", "rviz/*.rviz", "package.xml") for path in node.glob(kind)}
    assert {str(path.relative_to(ROOT)) for path in wanted} <= names
    assert {name.partition("/")[0] for name in names} - {"", *SOURCES} == {
        *("inspatio_sim", "inspatio_sim.egg-info", "envs", "ros2_ws", "PKG-INFO", "setup.cfg"),
    }


@pytest.mark.slow
def test_an_installed_wheel_is_what_runs(scripts: Path, tmp_path: Path):
    code = "import inspatio_sim, inspatio_envs, inspatio_ros as ros; print(inspatio_sim.__file__, inspatio_envs, ros)"
    assert run(scripts / "python", "-c", code, cwd=tmp_path).count(str(scripts.parent)) == 3


@pytest.mark.slow
def test_doctor_of_an_installed_wheel_is_content(scripts: Path, tmp_path: Path):
    said = run(scripts / "inspatio-sim", "doctor", cwd=tmp_path)
    assert "weights found of tiny" in said
    assert "weights found of frame-tiny" in said


@pytest.mark.slow
def test_an_installed_wheel_explores_a_clip(scripts: Path, clip: Path, tmp_path: Path):
    run(scripts / "inspatio-sim", "explore", clip, "--script", "forward 0.2", "--out", "walk", cwd=tmp_path)
    assert (tmp_path / "walk/observation.mp4").is_file()


@pytest.mark.slow
def test_gymnasium_makes_the_world_of_an_installed_wheel(scripts: Path, clip: Path, tmp_path: Path):
    code = f"import gymnasium; env = gymnasium.make('inspatio_envs:inspatio/World-v0', video={str(clip)!r}); "
    code += "env.reset(seed=0); env.step(env.action_space.sample()); env.close(); print('stepped')"
    assert run(scripts / "python", "-c", code, cwd=tmp_path).strip().endswith("stepped")


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_of_an_installed_wheel_says_its_parameters(scripts: Path, tmp_path: Path):
    pytest.importorskip("rclpy", reason="the ROS wheels are not here: pip install 'inspatio-sim[ros]'")
    assert "lock_step" in run(scripts / "inspatio-ros", "--help", cwd=tmp_path)
