"""What is installed, what is missing, and what runs here: the report of `inspatio-sim doctor`.

Packages are imported where they are examined, so that a broken package is a finding, not a crash.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspatio_sim.cli.options import Doctor as DoctorOptions
from inspatio_sim.cli.tables import doctor_tables
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError

REQUIRED = {  # every dependency and its module
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "numba": "numba",
    "einops": "einops",
    "safetensors": "safetensors",
    "filelock": "filelock",
    "av": "av",
    "OpenEXR": "OpenEXR",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pi-heif": "pi_heif",
    "scikit-image": "skimage",
    "py360convert": "py360convert",
    "pyyaml": "yaml",
    "open3d": "open3d",
    "pycolmap": "pycolmap",
    "gymnasium": "gymnasium",
    "tyro": "tyro",
    "typing_extensions": "typing_extensions",
    "rich": "rich",
}
OPTIONAL = (
    "transformers",
    "diffusers",
    "depth-anything-3",
    "stable-baselines3",
    "ros-rclpy",
    "rosbags",
    "viser",
    "rerun-sdk",
)
DA3_INSTALL = "pip install --no-deps depth-anything-3==0.1.1; pip install einops omegaconf addict"

MAX_VIDEO_ERROR = 4.0  # maximum mean difference of a written and read frame, out of 255

OPEN3D_LIBRARIES = {  # system libraries that Open3D's wheel loads: Debian and Ubuntu package names
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libgomp.so.1": "libgomp1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
}


def run(options: DoctorOptions, terminal: Terminal) -> int:
    """Report what runs here; exit code 1 if `explore` would not run."""
    weights = options.weights
    if weights is None and os.environ.get("INSPATIO_WEIGHTS"):
        weights = Path(os.environ["INSPATIO_WEIGHTS"])
    if weights is not None and not weights.is_dir():
        raise InputError(f"weights folder {weights}: no such folder")
    health = examine(weights)
    terminal.result(health, *doctor_tables(health))
    return 0 if health["ok"] else 1


def examine(weights: Path | None = None) -> dict[str, Any]:
    """Examine this machine.

    Args:
        weights: a folder of checkpoints to search; None: no search.

    Returns:
        One JSON-ready tree: `python`, `packages`, `broken` (dependency -> why it does not import), `devices`,
        `machine`, `system_libraries`, `weights`, `trials`, `methods` and `generators` (each name ->
        {"runs": bool, "why": str}), `ok`: `explore` would run here.
    """
    broken = {name: error for name, module in REQUIRED.items() if (error := _import_error(module))}
    found = find_weights(weights) if weights else []
    trials = {"video": _tried(_try_video), "kernels": _tried(_try_kernel)}
    methods = _methods(found)
    generators = {
        "warp": _tried(_imports, "geometry only, no weights needed", "inspatio_sim.generators.warp"),
        "star": _tried(_generator, "star", weights),
        "frame": _tried(_generator, "frame", weights),
    }
    needed = [*trials.values(), methods["rgbd"], methods["sfm"], generators["star"]]
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": {name: _version(name) for name in ("inspatio-sim", *REQUIRED, *OPTIONAL)},
        "broken": broken,
        "devices": _devices(),
        "machine": _machine(),
        "system_libraries": _system_libraries(broken.get("open3d")),
        "weights": {"folder": str(weights) if weights else None, "found": found},
        "trials": trials,
        "methods": methods,
        "generators": generators,
        "ok": not broken and all(entry["runs"] for entry in needed),
    }


def _tried(attempt: Callable[..., str], *arguments: Any) -> dict[str, Any]:
    """Whether something runs here, and why: `attempt` returns how it runs, or raises."""
    try:
        return {"runs": True, "why": attempt(*arguments)}
    except InputError as error:
        return {"runs": False, "why": str(error)}
    except Exception as error:  # what is broken may raise anything  # noqa: BLE001
        return {"runs": False, "why": _one_line(error)}


def _imports(how: str, *modules: str) -> str:
    for module in modules:
        importlib.import_module(module)
    return how


def _try_video() -> str:
    """Write a video of three frames and read it back."""
    import numpy as np

    from inspatio_sim.clips.video import VideoWriter, read_clip

    started_s = time.perf_counter()
    ramp = np.arange(160)[None, None, :, None] + np.array([0, 40, 80])[:, None, None, None]
    frames_u8 = np.broadcast_to(ramp, (3, 96, 160, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="inspatio-doctor-") as folder:
        path = Path(folder) / "trial.mp4"
        with VideoWriter(path, fps=24) as video:
            for frame_u8 in frames_u8:
                video.write(frame_u8)
        read_u8 = read_clip(path).frames_u8
    if read_u8.shape != frames_u8.shape:
        raise InputError(f"wrote a video of shape {frames_u8.shape}, read {read_u8.shape}")
    error = abs(read_u8.astype(int) - frames_u8).mean()
    if error > MAX_VIDEO_ERROR:
        raise InputError(f"a video read back differs by {error:.1f} of 255: want at most {MAX_VIDEO_ERROR:g}")
    return f"written and read in {time.perf_counter() - started_s:.1f} s"


def _try_kernel() -> str:
    """Compile a small kernel, or read it from the cache, and run it."""
    import numpy as np

    from inspatio_sim.kernels import kernel

    started_s = time.perf_counter()
    total = kernel(_sum_of_squares)(np.arange(4.0))
    if total != 14.0:
        raise InputError(f"a kernel returned {total}: want 14.0")
    return f"compiled and run in {time.perf_counter() - started_s:.1f} s"


def _sum_of_squares(values: Any) -> float:
    total = 0.0
    for value in values:
        total += value * value
    return total


def _generator(name: str, folder: Path | None) -> str:
    """The models of a generator whose files and packages are here."""
    from inspatio_sim.generators import KINDS
    from inspatio_sim.generators.presets.find import find_weights as find_preset_weights

    ready, without_package = [], []
    for preset in KINDS[name].presets.values():
        try:
            find_preset_weights(preset, folder)
        except InputError:
            continue
        is_ready = not preset.needs_diffusers or importlib.util.find_spec("diffusers") is not None
        (ready if is_ready else without_package).append(preset.name)
    wants = f"diffusers, for {', '.join(without_package)}, is not installed: pip install 'inspatio-sim[wan]'"
    missing = wants if without_package else ""
    if not ready:
        raise InputError(missing or "no weights found (see inspatio-sim weights list); random ones run anywhere")
    return f"weights found for {', '.join(ready)}{'; ' if missing else ''}{missing}"


def find_weights(folder: Path) -> list[dict[str, str]]:
    """List depth models in a folder, two levels deep: {"method": "hf" | "da3", "folder", "model"}."""
    found = []
    for pattern in ("config.json", "*/config.json", "*/*/config.json"):
        for config_path in sorted(folder.glob(pattern)):
            model = _depth_model(config_path)
            if model is not None:
                found.append({"method": model[0], "folder": str(config_path.parent), "model": model[1]})
    return found


def _depth_model(config_path: Path) -> tuple[str, str] | None:
    """(method, model name) if this config belongs to a depth model with its weights beside it."""
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
    """The reason that a module does not import, or None."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken native library may raise anything  # noqa: BLE001
        return _one_line(error)
    return None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _devices() -> list[dict[str, Any]]:
    """The devices torch can compute on, best first; or the CPU if torch does not import."""
    torch: Any = sys.modules.get("torch")
    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch and torch.cuda.is_available() else 0):
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
    torch: Any = sys.modules.get("torch")
    return {
        "cores": cores,
        "memory_gb": round(page_b * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "memory_available_gb": round(page_b * os.sysconf("SC_AVPHYS_PAGES") / 1e9, 1),
        "torch_threads": torch.get_num_threads() if torch else None,
    }


def _system_libraries(open3d_error: str | None) -> dict[str, Any]:
    missing = [name for name in OPEN3D_LIBRARIES if not _loads(name)]
    packages = " ".join(OPEN3D_LIBRARIES[name] for name in missing)
    return {
        "open3d_imports": open3d_error is None,
        "open3d_error": open3d_error,
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
    """The reconstruction methods that run, and why or why not."""

    def with_weights(method: str, module: str, install: str) -> str:
        if importlib.util.find_spec(module) is None:
            raise InputError(f"not installed: {install}")
        folders = [entry["folder"] for entry in found if entry["method"] == method]
        if not folders:
            raise InputError("no weights found: set a folder with --weights or INSPATIO_WEIGHTS")
        return f"weights in {folders[0]}"

    def tiny() -> str:
        from inspatio_sim.geometry.completion import SHIPPED_NETWORK

        if not SHIPPED_NETWORK.is_file():
            raise InputError(f"no depth network at {SHIPPED_NETWORK}")
        return f"depth network at {SHIPPED_NETWORK}"

    room = "inspatio_sim.reconstruction"
    return {
        "rgbd": _tried(_imports, "for clips with measured depth", f"{room}.rgbd"),
        "sfm": _tried(_imports, "for moving cameras; no weights needed", "pycolmap", f"{room}.sfm"),
        "layout": _tried(_imports, "a single-view prior for static cameras; no weights needed", f"{room}.layout"),
        "tiny": _tried(tiny),
        "hf": _tried(with_weights, "hf", "transformers", "pip install 'inspatio-sim[depth]'"),
        "da3": _tried(with_weights, "da3", "depth_anything_3", DA3_INSTALL),
    }
