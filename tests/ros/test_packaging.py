"""The package as pip and colcon see it: what package.xml says, what colcon builds, what the README promises."""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from inspatio_ros import fastdds
from inspatio_ros.domain import free_domain

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ros2_ws/src/inspatio_ros"
README = ROOT / "ros2_ws/README.md"
MANIFESTS = {"inspatio_sim": ROOT / "package.xml", "inspatio_ros": PACKAGE / "package.xml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COLCON = Path(sysconfig.get_path("scripts")) / "colcon"
NEEDS_COLCON = pytest.mark.skipif(not COLCON.exists(), reason="colcon-common-extensions is not in this environment")


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_is_valid_and_has_the_version_of_the_project(name: str):
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="comes with colcon")
    warnings: list[str] = []
    package = catkin_pkg.parse_package(str(MANIFESTS[name]), warnings=warnings)
    assert warnings == []
    assert package.name == name
    assert package.version == PROJECT["project"]["version"]
    assert package.licenses == [PROJECT["project"]["license"]]
    assert package.get_build_type() == "ament_python"


def test_every_ros_package_that_is_imported_is_declared():
    manifest = ElementTree.parse(MANIFESTS["inspatio_ros"])
    declared = {element.text for element in manifest.iterfind("exec_depend")}
    source = "\n".join(path.read_text() for path in (PACKAGE / "inspatio_ros").glob("*.py"))
    imported = set(re.findall(r"^\s*(?:from|import) (rclpy|\w+_(?:msgs|srvs|interfaces))\b", source, re.MULTILINE))
    assert "rclpy" in imported
    assert imported <= declared


def test_setup_py_agrees_with_the_manifest():
    done = subprocess.run(
        [sys.executable, "setup.py", "--name", "--version", "--maintainer-email"],
        cwd=PACKAGE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name, version, email = done.stdout.split()
    manifest = ElementTree.parse(MANIFESTS["inspatio_ros"]).getroot()
    assert name.replace("-", "_") == manifest.findtext("name")
    assert version == manifest.findtext("version")
    maintainer = manifest.find("maintainer")
    assert maintainer is not None
    assert email == maintainer.get("email")


def test_the_fast_dds_profile_has_room_for_images_and_keeps_udp():
    space = {"dds": "http://www.eprosima.com"}
    profile = ElementTree.parse(PACKAGE / "inspatio_ros/fastdds.xml").getroot()
    transports = {
        one.findtext("dds:type", namespaces=space): one
        for one in profile.iterfind(".//dds:transport_descriptor", space)
    }
    assert set(transports) == {"SHM", "UDPv4"}
    assert int(transports["SHM"].findtext("dds:segment_size", "0", space)) >= 8 << 20
    used = {one.text for one in profile.iterfind(".//dds:userTransports/dds:transport_id", space)}
    assert used == {one.findtext("dds:transport_id", namespaces=space) for one in transports.values()}
    assert profile.findtext(".//dds:useBuiltinTransports", namespaces=space) == "false"


@pytest.mark.parametrize("own", [None, "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"])
def test_the_profile_is_used_unless_the_user_has_one(own: str | None, monkeypatch: pytest.MonkeyPatch):
    for variable in fastdds.VARIABLES:
        monkeypatch.setenv(variable, "")
    if own:
        monkeypatch.setenv(own, "mine.xml")
    fastdds.use_profile()
    named = {os.environ[variable] for variable in fastdds.VARIABLES}
    assert named == ({"", "mine.xml"} if own else {str(PACKAGE / "inspatio_ros/fastdds.xml")})


def test_the_node_runs_with_the_profile():
    """Its shared memory is larger than Fast DDS would make it by itself."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc to look at")
    environment = {name: value for name, value in os.environ.items() if name not in fastdds.VARIABLES}
    isolated = {
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "inspatio_ros.main", "--ros-args", "-p", "autostart:=false"]
    with subprocess.Popen(command, env={**environment, **isolated}, stderr=subprocess.DEVNULL) as node:
        try:
            deadline = time.monotonic() + 60
            while max(sizes := shared_memory(node.pid), default=0) < 32 << 20:
                assert node.poll() is None, "the node has ended"
                assert time.monotonic() < deadline, f"segments of {sizes} bytes"
                time.sleep(0.1)
        finally:
            node.terminate()


def shared_memory(pid: int) -> list[int]:
    """Sizes of Fast DDS's segments in a process, without those of its ports."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    spans = [
        line.split()[0].split("-") for line in lines if re.search(r"/dev/shm/fast(rtps|dds)_(?!port)\w{16}$", line)
    ]
    return [int(end, 16) - int(start, 16) for start, end in spans]


@NEEDS_COLCON
def test_colcon_takes_it_for_an_ament_package(tmp_path: Path):
    """An invalid package.xml would silently make it a plain Python package."""
    done = subprocess.run(
        [COLCON, "--log-base", tmp_path, "list", "--base-paths", "ros2_ws/src"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["inspatio_ros", "ros2_ws/src/inspatio_ros", "(ros.ament_python)"]


@NEEDS_COLCON
@pytest.mark.slow
def test_colcon_builds_it_and_its_executable_runs_before_anything_is_sourced(tmp_path: Path):
    subprocess.run(
        [COLCON, "--log-base", "log", "build", "--base-paths", PACKAGE.parent],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    prefix = tmp_path / "install/inspatio_ros"
    done = subprocess.run([prefix / "lib/inspatio_ros/world", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "generator" in done.stdout
    (modules,) = prefix.glob("lib/python*/site-packages/inspatio_ros")
    assert (modules / "fastdds.xml").is_file()
    (modules / "__init__.py").write_text("raise SystemExit('the installed copy ran')\n")
    done = subprocess.run([prefix / "lib/inspatio_ros/world"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.strip() == "the installed copy ran"
    share = prefix / "share/inspatio_ros"
    assert {path.name for path in (share / "launch").iterdir()} == {
        path.name for path in (PACKAGE / "launch").iterdir()
    }
    assert (share / "rviz/world.rviz").is_file()
    assert (prefix / "share/ament_index/resource_index/packages/inspatio_ros").is_file()


def test_the_readme_has_the_tables_of_the_node():
    for name in ("diagnostic_msgs", "tf2_msgs"):  # without them rows lack their types
        pytest.importorskip(name)
    tables = runpy.run_path(str(README.with_name("tables.py")))
    text = README.read_text()
    assert tables["with_tables"](text) == text, "renew it with: python ros2_ws/tables.py"


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", README.read_text()):
        if "://" not in target:
            assert (README.parent / target).exists(), target
