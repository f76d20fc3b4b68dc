"""What is installed here, what is missing, and what would run: the report behind `inspatio-sim doctor`."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from inspatio_sim.cli.options import Doctor as DoctorOptions
from inspatio_sim.cli.tables import doctor_tables
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.generators import KINDS, GeneratorKind
from inspatio_sim.generators.presets.find import find_weights as find_preset_weights
from inspatio_sim.geometry.completion import SHIPPED_NETWORK

PACKAGES = (
    "inspatio-sim",
    "torch",
    "numpy",
    "scipy",
    "numba",
    "av",
    "opencv-python-headless",
    "pillow",
    "scikit-image",
    "open3d",
    "pycolmap",
    "safetensors",
    "gymnasium",
    "tyro",
    "rich",
    "transformers",
    "diffusers",
    "depth-anything-3",
    "stable-baselines3",
    "ros-rclpy",
    "viser",
    "rerun-sdk",
)

OPEN3D_LIBRARIES = {  # what Open3D's wheel loads from the system: Debian and Ubuntu package names
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libgomp.so.1": "libgomp1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
}


def run(options: DoctorOptions, terminal: Terminal) -> int:
    """Say what would run here; returns the exit code: 1 if the main job would not."""
    weights = options.weights
    if weights is None and os.environ.get("INSPATIO_WEIGHTS"):
        weights = Path(os.environ["INSPATIO_WEIGHTS"])
    if weights is not None and not weights.is_dir():
        raise InputError(f"weights folder {weights}: no such folder")
    health = examine(weights)
    terminal.result(health, *doctor_tables(health))
    return 0 if health["ok"] else 1


def examine(weights: Path | None = None) -> dict[str, Any]:
    """Look at this machine.

    Args:
        weights: a folder of checkpoints to look through; nothing is looked for without one.

    Returns:
        One JSON-ready tree: `python`, `packages`, `devices`, `machine`, `system_libraries`, `weights`,
        `methods` and `generators` (each name -> {"runs": bool, "why": str}), `ok`.
    """
    libraries = _system_libraries()
    found = find_weights(weights) if weights else []
    methods = _methods(found)
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "machine": _machine(),
        "system_libraries": libraries,
        "weights": {"folder": str(weights) if weights else None, "found": found},
        "methods": methods,
        "generators": {name: _generator(kind, weights) for name, kind in KINDS.items()},
        "ok": methods["rgbd"]["runs"] and methods["sfm"]["runs"] and libraries["open3d_imports"],
    }


def _generator(kind: GeneratorKind, folder: Path | None) -> dict[str, Any]:
    """Which models of a generator have here what they need."""
    if not kind.presets:
        return {"runs": True, "why": "geometry only, no weights needed"}
    ready, without_package = [], []
    for preset in kind.presets.values():
        try:
            find_preset_weights(preset, folder)
        except InputError:
            continue
        is_ready = not preset.needs_diffusers or importlib.util.find_spec("diffusers") is not None
        (ready if is_ready else without_package).append(preset.name)
    wants = f"diffusers, for {', '.join(without_package)}, is not installed: pip install -e '.[wan]'"
    missing = wants if without_package else ""
    if ready:
        return {"runs": True, "why": f"weights found of {', '.join(ready)}{'; ' if missing else ''}{missing}"}
    nothing = "no weights found (see inspatio-sim weights list); random ones run anywhere"
    return {"runs": False, "why": missing or nothing}


def find_weights(folder: Path) -> list[dict[str, str]]:
    """List depth models at or below a folder (two levels deep): {"method": "hf" | "da3", "folder", "model"}."""
    found = []
    for pattern in ("config.json", "*/config.json", "*/*/config.json"):
        for config_path in sorted(folder.glob(pattern)):
            model = _depth_model(config_path)
            if model is not None:
                found.append({"method": model[0], "folder": str(config_path.parent), "model": model[1]})
    return found


def _depth_model(config_path: Path) -> tuple[str, str] | None:
    """(method, model name) if this config belongs to a depth model whose weights stand beside it."""
    if not any(config_path.parent.glob("*.safetensors")):
        return None
    try:
        config = json.loads(config_path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    for architecture in config.get("architectures") or []:
        if str(architecture).endswith("ForDepthEstimation"):
            return "hf", str(architecture)
    name = str(config.get("model_name", ""))
    return ("da3", name) if name.startswith("da3") else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(module: str) -> str | None:
    """Why a module does not import, in one line; None where it does."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken native library may raise anything  # noqa: BLE001
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    return None


def _devices() -> list[dict[str, Any]]:
    """The devices torch can compute on, best first."""
    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        memory_gb = round(properties.total_memory / 1e9, 1)
        devices.append(
            {"device": f"cuda:{index}", "name": properties.name, "memory_gb": memory_gb, "capability": capability}
        )
    return [*devices, {"device": "cpu", "name": _cpu_name(), "memory_gb": None, "capability": None}]


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    page_b = os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": cores,
        "memory_gb": round(page_b * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "memory_available_gb": round(page_b * os.sysconf("SC_AVPHYS_PAGES") / 1e9, 1),
        "torch_threads": torch.get_num_threads(),
    }


def _system_libraries() -> dict[str, Any]:
    missing = [name for name in OPEN3D_LIBRARIES if not _loads(name)]
    error = _import_error("open3d")
    packages = " ".join(OPEN3D_LIBRARIES[name] for name in missing)
    return {
        "open3d_imports": error is None,
        "open3d_error": error,
        "missing": missing,
        "install": f"sudo apt-get install -y {packages}" if missing else None,
    }


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _methods(found: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Which reconstruction methods would run, and why or why not."""

    def with_weights(method: str, module: str, install: str) -> dict[str, Any]:
        if importlib.util.find_spec(module) is None:
            return {"runs": False, "why": f"not installed: {install}"}
        folders = [entry["folder"] for entry in found if entry["method"] == method]
        if not folders:
            return {"runs": False, "why": "no weights found: name a folder with --weights or INSPATIO_WEIGHTS"}
        return {"runs": True, "why": f"weights in {folders[0]}"}

    has_network = SHIPPED_NETWORK.is_file()
    pycolmap_error = _import_error("pycolmap")
    return {
        "rgbd": {"runs": True, "why": "for clips that bring depth"},
        "sfm": {"runs": pycolmap_error is None, "why": pycolmap_error or "for moving cameras; no weights needed"},
        "layout": {"runs": True, "why": "a single-view prior for static cameras; no weights needed"},
        "tiny": {"runs": has_network, "why": f"{'' if has_network else 'no '}depth network at {SHIPPED_NETWORK}"},
        "hf": with_weights("hf", "transformers", "pip install -e '.[depth]'"),
        "da3": with_weights(
            "da3",
            "depth_anything_3",
            "pip install --no-deps depth-anything-3==0.1.1; pip install einops omegaconf addict",
        ),
    }
