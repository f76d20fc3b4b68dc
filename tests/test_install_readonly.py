"""The package where this user can write neither to it nor to a home, as in a container run as nobody."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspatio_sim.files.caches import NOWHERE
from tests.programs import ROOT, run_program

NOBODY, NAMELESS = 65534, 54321  # the second is in no list of users
NOTE = "caches and logs go to"
# Root may write anywhere, so its tests become another user, who may still read: the interpreter may lie in root's home.
ONLY_READ = ["--clear-groups", "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
PACKAGES = [
    ROOT / "inspatio_sim",
    ROOT / "envs/inspatio_envs",
    ROOT / "ros2_ws/src/inspatio_ros/inspatio_ros",
]
KERNEL = """
import inspatio_sim
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.geometry import keys, splat
from inspatio_sim.mapping.storage import pack_key
print(inspatio_sim.__file__, pack_key(1, 2, 3), f"cache: {cache_folder()}")
"""


def becoming(user: int) -> list[str]:
    """A command that runs another as a user without a home; none needed where this user is not root."""
    home = ["env", "HOME=/nonexistent"] if user == NOBODY else ["env", "-u", "HOME"]
    if os.getuid() != 0:
        return home
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", *ONLY_READ, *home]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("root cannot become another user here (setpriv, of util-linux)")
    return command


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Iterator[Path]:
    """A copy of the package without write bits, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    for source in PACKAGES:
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """A temporary folder that all users can write to, and no cache named."""
    for variable in ("INSPATIO_CACHE", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def run_readonly(package: Path, scratch: Path, *arguments: str, user: int = NOBODY, timeout_s: float = 600, **env: str):
    env = {"PYTHONPATH": str(package), "TMPDIR": str(scratch), **env}
    return run_program(arguments, timeout_s=timeout_s, env=env, before=becoming(user), cwd=scratch)


def private_folder(scratch: Path, user: int = NOBODY) -> Path:
    return scratch / f"inspatio-sim-{user if os.getuid() == 0 else os.getuid()}"


@pytest.mark.parametrize("user", [NOBODY, NAMELESS])
def test_kernels_are_kept_in_a_private_folder_with_one_note(package, scratch, user):
    for _ in range(2):  # compiled, then loaded
        done = run_readonly(package, scratch, "-c", KERNEL, user=user)
        assert done.returncode == 0, done.stdout
        assert f"{package}/inspatio_sim/__init__.py" in done.stdout
        assert done.stdout.count(NOTE) == 1, done.stdout
    folder = private_folder(scratch, user)
    assert list(scratch.iterdir()) == [folder]
    assert f"cache: {folder}" in done.stdout
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.rglob("storage.pack_key*.nbc"))) == 1


def test_a_folder_of_the_users_own_is_taken_without_a_word(package, scratch):
    own = str(scratch / "own")
    done = run_readonly(package, scratch, "-c", KERNEL, NUMBA_CACHE_DIR=own, INSPATIO_CACHE=own)
    assert done.returncode == 0, done.stdout
    assert NOTE not in done.stdout
    assert list((scratch / "own").rglob("*.nbc"))
    assert not private_folder(scratch).exists()


@pytest.mark.parametrize("trap", ["open to all", "link", "another user's"])
def test_nothing_is_loaded_from_a_folder_that_another_user_could_write(package, scratch, trap):
    folder = private_folder(scratch)
    if trap == "link":
        (scratch / "target").mkdir()
        folder.symlink_to(scratch / "target")
    else:
        folder.mkdir()
    if trap == "open to all":
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        folder.chmod(0o777)
    if trap == "another user's" and os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    done = run_readonly(package, scratch, "-c", KERNEL)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("nothing is kept between runs") == 1, done.stdout
    assert f"cache: {NOWHERE}" in done.stdout
    assert not list(folder.iterdir())


def test_caches_without_a_home(package, scratch):
    program = """
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.generators.star.compiled import compile_blocks
from torch import nn
print(cache_folder(), cache_folder())
compile_blocks(nn.ParameterDict({"blocks": nn.ParameterList()}))
"""
    done = run_readonly(package, scratch, "-c", program, user=NAMELESS)
    assert done.returncode == 0, done.stdout
    folder = private_folder(scratch, NAMELESS)
    assert f"{folder} {folder}" in done.stdout
    assert done.stdout.count(NOTE) == 1
    assert (folder / "compiled").is_dir()


def test_a_compilers_cache_that_cannot_be_written_is_named(package, scratch):
    program = """
from inspatio_sim.generators.star.compiled import compile_blocks
from torch import nn
try:
    compile_blocks(nn.ParameterDict({"blocks": nn.ParameterList()}))
except ValueError as error:
    print("refused:", error)
"""
    done = run_readonly(package, scratch, "-c", program, TORCHINDUCTOR_CACHE_DIR="/proc/none")
    assert "refused: cannot write none to folder /proc" in done.stdout


def test_a_ros_node_has_a_log(package, scratch, monkeypatch):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    for variable in ("ROS_LOG_DIR", "ROS_HOME"):
        monkeypatch.delenv(variable, raising=False)
    program = """
from inspatio_ros.main import use_log_folder
use_log_folder()
import rclpy
rclpy.init()
rclpy.create_node("nobody").get_logger().info("here")
rclpy.shutdown()
"""
    done = run_readonly(package, scratch, "-c", program)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(NOTE) == 1, done.stdout
    assert list((private_folder(scratch) / "ros-log").glob("*.log"))


@pytest.mark.slow
def test_doctor(package, scratch):
    done = run_readonly(package, scratch, "-m", "inspatio_sim.cli.main", "doctor")
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_an_env_and_its_workers(package, scratch):
    (scratch / "program.py").write_text(
        """
import gymnasium

if __name__ == "__main__":
    options = dict(generator="warp", size_px=(48, 80), max_frames=8)
    env = gymnasium.make("inspatio_envs:inspatio/PointNav-v0", **options)
    env.reset(seed=0)
    env.step(1)
    envs = gymnasium.make_vec("inspatio_envs:inspatio/PointNav-v0", num_envs=2, num_workers=2, **options)
    envs.reset(seed=0)
    envs.step([1, 1])
    envs.close()
"""
    )
    done = run_readonly(package, scratch, str(scratch / "program.py"), timeout_s=1800)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(NOTE) == 1, done.stdout
