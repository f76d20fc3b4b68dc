"""tf2_msgs without a ROS distribution: the one message of /tf, generated and compiled from the wheels.

PyPI has rclpy and the common messages but not tf2_msgs; its code generators come with rclpy. If
tf2_msgs is installed, nothing is built. Without a compiler, one line gives the reason and the node runs without tf.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import io
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing
from inspatio_sim.files.caches import cache_folder

PACKAGE = "tf2_msgs"
DEFINITION = "geometry_msgs/TransformStamped[] transforms\n"
TYPE_SUPPORTS = ("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")
MARKER = "built_by_inspatio_ros.json"  # distinguishes a package built here from a distribution's
WHEELS_WANTED = f"the ROS wheels are not in {sys.prefix}: pip install 'inspatio-sim[ros]' brings them"
TIMEOUT_S = 120.0  # a build takes some seconds


class BuildError(InputError):
    """tf2_msgs cannot be built here; the message says why and what to do."""


def tf_message() -> type:
    """The class tf2_msgs.msg.TFMessage: from this environment, or built now and kept in the user's cache.

    Raises:
        BuildError: if it is missing and cannot be built.
    """
    if not _importable():
        folder = cache_folder() / PACKAGE / _build_key()
        if not (folder / PACKAGE).is_dir():
            try:
                _build_in_a_process_of_its_own(folder)
            except BuildError:
                if not (folder / PACKAGE).is_dir():  # another node may have built it meanwhile
                    raise
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    return importlib.import_module(f"{PACKAGE}.msg").TFMessage


def build(folder: Path) -> Path:
    """Make the package `folder`/tf2_msgs, whole or not at all, and return its path."""
    compiler = _compiler()
    prefix = _prefix()
    with tempfile.TemporaryDirectory() as scratch, replacing(folder / PACKAGE) as package:
        with redirect_stdout(io.StringIO()):  # the generators print what they read and write
            generated = _generate(prefix, Path(scratch))
        shutil.copytree(generated / "python" / PACKAGE, package, ignore=shutil.ignore_patterns("*.c"))
        (package / "__init__.py").touch()
        _compile(compiler, prefix, generated, package)
        (package / MARKER).write_text(json.dumps({"key": _build_key()}) + "\n")
    return folder / PACKAGE


def _importable() -> bool:
    """Whether `import tf2_msgs` gives a compatible one, not one built for other versions of Python or ROS."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return False
    marker = Path(found.origin).with_name(MARKER)
    return not marker.is_file() or json.loads(marker.read_text())["key"] == _build_key()


def _build_key() -> str:
    """A hash of everything the compiled files depend on: this file, Python, the generators and messages."""
    try:
        versions = [f"{name} {version(name)}" for name in ("ros-rclpy", "ros-geometry-msgs", "ros-rosidl-generator-py")]
    except PackageNotFoundError as error:
        raise BuildError(WHEELS_WANTED) from error
    parts = [Path(__file__).read_text(), sys.version, sysconfig.get_platform(), sys.prefix, *versions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build_in_a_process_of_its_own(folder: Path) -> None:
    """Build in a child process, since the generators print and replace sys.stdout."""
    command = [sys.executable, "-m", "inspatio_ros.tf2_build", "--into", str(folder)]
    modules = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(modules)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"building {PACKAGE} took more than {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise BuildError((done.stderr.strip() or "no output").splitlines()[-1].removeprefix("error: "))


def _compiler() -> str:
    wanted = os.environ.get("CC") or "cc"
    compiler = shutil.which(wanted) or shutil.which("gcc")
    if compiler is None:
        raise BuildError(f"no C compiler ({wanted}): install gcc and g++, then run inspatio-ros-tf2")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise BuildError(f"{header} is missing: install Python's headers (python3-dev), then run inspatio-ros-tf2")
    return compiler


def _prefix() -> Path:
    """The folder with share/, include/ and lib/ of the ROS wheels."""
    for prefix in (Path(sys.prefix), Path(site.getuserbase())):
        if (prefix / "share/rosidl_generator_c/resource").is_dir() and (prefix / "include/geometry_msgs").is_dir():
            return prefix
    raise BuildError(WHEELS_WANTED)


def _generate(prefix: Path, scratch: Path) -> Path:
    """Message definition -> IDL -> type description and hash -> C structs, type supports, Python.

    Each generator writes to its own folder. Returns the folder that holds them all.
    """
    import rosidl_generator_c
    import rosidl_generator_py
    import rosidl_generator_type_description
    import rosidl_typesupport_c
    import rosidl_typesupport_fastrtps_c
    import rosidl_typesupport_introspection_c
    from rosidl_adapter.msg import convert_msg_to_idl

    sources = scratch / "sources" / PACKAGE
    (sources / "msg").mkdir(parents=True)
    (sources / "msg/TFMessage.msg").write_text(DEFINITION)
    convert_msg_to_idl(sources, PACKAGE, Path("msg/TFMessage.msg"), sources / "msg")
    idl_files = sorted(prefix.glob("share/*/msg/*.idl"))

    def arguments(generator: str, output: Path, **more: object) -> str:
        """Write the arguments of a generator; returns the file's path."""
        output.mkdir(parents=True, exist_ok=True)
        content = {
            "package_name": PACKAGE,
            "output_dir": str(output),
            "template_dir": str(prefix / "share" / generator / "resource"),
            "idl_tuples": [f"{sources}:msg/TFMessage.idl"],
            "ros_interface_dependencies": [f"{path.parents[1].name}:{path}" for path in idl_files],
            "target_dependencies": [],
            **more,
        }
        path = scratch / f"{generator}.json"
        path.write_text(json.dumps(content))
        return str(path)

    hashes = scratch / "type_description"
    packages = sorted({path.parents[1] for path in idl_files})
    rosidl_generator_type_description.generate_type_hash(
        arguments(
            "rosidl_generator_type_description", hashes, include_paths=[f"{path.name}:{path}" for path in packages]
        )
    )
    described = {
        "type_description_tuples": [f"msg/TFMessage.idl:{hashes / 'msg/TFMessage.json'}"],
        "ros_interface_files": [str(sources / "msg/TFMessage.msg")],
    }
    for generator in ("rosidl_generator_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"):
        _visibility_header(prefix, generator, scratch / generator / PACKAGE / "msg")
    rosidl_generator_c.generate_c(
        arguments("rosidl_generator_c", scratch / "rosidl_generator_c" / PACKAGE, **described)
    )
    rosidl_typesupport_fastrtps_c.generate_typesupport_fastrtps_c(
        arguments("rosidl_typesupport_fastrtps_c", scratch / "rosidl_typesupport_fastrtps_c" / PACKAGE)
    )
    rosidl_typesupport_introspection_c.generate_c(
        arguments("rosidl_typesupport_introspection_c", scratch / "rosidl_typesupport_introspection_c" / PACKAGE)
    )
    rosidl_typesupport_c.generate_c(
        arguments("rosidl_typesupport_c", scratch / "rosidl_typesupport_c" / PACKAGE), list(TYPE_SUPPORTS)
    )
    rosidl_generator_py.generate_py(
        arguments("rosidl_generator_py", scratch / "python" / PACKAGE), ["rosidl_typesupport_c"]
    )
    return scratch


def _visibility_header(prefix: Path, generator: str, folder: Path) -> None:
    template = (prefix / f"share/{generator}/resource/{generator}__visibility_control.h.in").read_text()
    folder.mkdir(parents=True)
    text = template.replace("@PROJECT_NAME@", PACKAGE).replace("@PROJECT_NAME_UPPER@", PACKAGE.upper())
    (folder / f"{generator}__visibility_control.h").write_text(text)


def _compile(compiler: str, prefix: Path, generated: Path, package: Path) -> None:
    """Three shared libraries and the extension module that pulls them in, side by side in the package.

    The extension needs all three, so that they are loaded when rosidl_typesupport_c asks for them by name.
    """
    import numpy

    folders = [generated / name for name in ("rosidl_generator_c", *TYPE_SUPPORTS, "python")]
    folders += [prefix / "include", *sorted((prefix / "include").iterdir())]
    folders += [Path(sysconfig.get_path("include")), Path(numpy.get_include())]
    common = [compiler, "-shared", "-fPIC", "-O1", "-w", *(f"-I{folder}" for folder in folders)]
    found = ["-L", str(package), "-L", str(prefix / "lib"), "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN"]
    libraries = [f"{PACKAGE}__rosidl_generator_c", *(f"{PACKAGE}__{name}" for name in TYPE_SUPPORTS)]
    messages = "geometry_msgs__"

    def link(output: str, sources: Sequence[Path], needs: Sequence[str]) -> None:
        soname = f"-Wl,-soname,{output}"
        command = [*common, soname, "-o", str(package / output), *map(str, sources), *found]
        _run([*command, *(f"-l{name}" for name in needs), "-lstdc++"])

    link(
        f"lib{libraries[0]}.so",
        sorted(generated.glob(f"rosidl_generator_c/{PACKAGE}/msg/detail/*.c")),
        [f"{messages}rosidl_generator_c", "rosidl_runtime_c", "rcutils"],
    )
    link(
        f"lib{libraries[1]}.so",
        sorted(generated.glob(f"rosidl_typesupport_fastrtps_c/{PACKAGE}/msg/detail/*.cpp")),
        [
            libraries[0],
            f"{messages}rosidl_typesupport_fastrtps_c",
            "rosidl_typesupport_fastrtps_c",
            "rosidl_typesupport_fastrtps_cpp",
            "fastcdr",
        ],
    )
    link(
        f"lib{libraries[2]}.so",
        sorted(generated.glob(f"rosidl_typesupport_introspection_c/{PACKAGE}/msg/detail/*.c")),
        [libraries[0], f"{messages}rosidl_typesupport_introspection_c", "rosidl_typesupport_introspection_c"],
    )
    link(
        f"{PACKAGE}_s__rosidl_typesupport_c{sysconfig.get_config_var('EXT_SUFFIX')}",
        [
            *sorted(generated.glob(f"rosidl_typesupport_c/{PACKAGE}/msg/*.cpp")),
            *sorted(generated.glob(f"python/{PACKAGE}/**/*.c")),
        ],
        [*libraries, f"{messages}rosidl_generator_py", "rosidl_typesupport_c", "rosidl_runtime_c", "rcutils", "rmw"],
    )


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{Path(command[0]).name} could not compile {PACKAGE}: {(complaints or ['no output'])[0]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """`inspatio-ros-tf2`: build tf2_msgs into this environment unless it is installed."""
    parser = argparse.ArgumentParser(
        prog="inspatio-ros-tf2",
        description="Builds the ROS package tf2_msgs without a ROS distribution, so that /tf works.",
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="target folder (default: this environment's site-packages)"
    )
    into: Path | None = parser.parse_args(arguments).into
    try:
        if into is None and _importable():
            print(f"{PACKAGE} is already installed")
            return 0
        print(f"built {build(into or Path(sysconfig.get_path('purelib')))}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
