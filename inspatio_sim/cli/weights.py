"""`inspatio-sim weights`; its options are in `options`."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from inspatio_sim.checkpoints.files import Checkpoint, checkpoint_paths, open_checkpoint
from inspatio_sim.checkpoints.tensors import DTYPES
from inspatio_sim.checkpoints.wanted import WantedFile
from inspatio_sim.cli.options import WeightsCheck, WeightsConvert, WeightsList
from inspatio_sim.cli.tables import two_columns, weights_check_tables, weights_list_tables
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.convert import convert
from inspatio_sim.generators.presets.find import find_file, incomplete, weights_folders
from inspatio_sim.generators.presets.identify import identify
from inspatio_sim.generators.presets.load import read_finite
from inspatio_sim.generators.presets.plan import plan_as_is
from inspatio_sim.generators.presets.registry import PRESETS, Preset, preset_by_name
from inspatio_sim.progress import Progress

AS_IS = "as-is"
_HASHED_B = 2**24  # bytes read at a time


def run(options: WeightsList | WeightsCheck | WeightsConvert, terminal: Terminal) -> int:
    """Run one action; returns the exit code."""
    if isinstance(options, WeightsList):
        return list_weights(options, terminal)
    if isinstance(options, WeightsCheck):
        return check_weights(options, terminal)
    return convert_weights(options, terminal)


def list_weights(options: WeightsList, terminal: Terminal) -> int:
    """`inspatio-sim weights list`."""
    folders = weights_folders(options.weights)
    report = {
        "command": "weights list",
        "folders": [str(folder) for folder in folders],
        "presets": [_preset_report(preset, folders) for preset in PRESETS.values()],
    }
    terminal.result(report, *weights_list_tables(report))
    return 0


def check_weights(options: WeightsCheck, terminal: Terminal) -> int:
    """`inspatio-sim weights check`; the exit code is 1 if something is damaged or missing."""
    preset = preset_by_name(options.preset) if options.preset else None
    if preset and not options.folder.is_dir():
        raise InputError(f"--preset: {options.folder} is not a folder: want a folder with the files of a preset")
    paths = _checkpoints_in(options.folder)
    with terminal.progress() as progress:
        checkpoints = [_checkpoint_report(path, progress if options.deep else None) for path in paths]
    report = {
        "command": "weights check",
        "checkpoints": checkpoints,
        "preset": _preset_report(preset, [options.folder]) if preset else None,
    }
    terminal.result(report, *weights_check_tables(report))
    is_complete = report["preset"] is None or report["preset"]["ok"]
    return 0 if is_complete and not any(checkpoint["problem"] for checkpoint in checkpoints) else 1


def convert_weights(options: WeightsConvert, terminal: Terminal) -> int:
    """`inspatio-sim weights convert`."""
    if options.to not in (*PRESETS, AS_IS):
        raise InputError(f"--to {options.to[:40]}: want one of {', '.join(PRESETS)}, {AS_IS}")
    dtype = DTYPES[options.dtype] if options.dtype else None
    with terminal.progress() as progress:
        notes = convert(options.source, PRESETS.get(options.to), options.out, dtype=dtype, progress=progress)
    with open_checkpoint(options.out) as written:
        report = {
            "command": "weights convert",
            "source": str(options.source),
            "to": options.to,
            "notes": notes,
            **_checkpoint_facts(written),
        }
    rows = {
        "holds": report["what"],
        "tensors": f"{report['num_tensors']} with {report['num_parameters'] / 1e6:,.3f} million numbers",
        "changes": notes["changes"],
        "licence": report["licence"] or "unknown from the file",
    }
    terminal.result(report, two_columns(f"Written to {options.out}", rows))
    return 0


def _checkpoints_in(folder: Path) -> list[Path]:
    if not folder.exists():
        raise InputError(f"{folder}: no such file or folder")
    if not folder.is_dir():
        return [folder]
    inner = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir()]
    paths = [path for place in sorted({folder, *inner}) for path in checkpoint_paths(place)]
    if not paths:
        raise InputError(f"{folder}: no .safetensors, .pth or .pt in it, or in its subfolders (two levels)")
    return paths


def _checkpoint_report(path: Path, deep: Progress | None) -> dict[str, Any]:
    """Describe a checkpoint or its faults; `deep` reads every value and reports progress."""
    try:
        with open_checkpoint(path) as checkpoint:
            facts = _checkpoint_facts(checkpoint)
            plan_as_is(checkpoint)  # raises for non-float tensors
            if deep:
                _check_finite(checkpoint, facts["num_parameters"], deep)
            sha256 = {file.name: _sha256(file) for file in checkpoint.files} if deep else {}
    except InputError as error:
        return {"path": str(path), "problem": str(error)}
    return {"path": str(path), "problem": None, "sha256": sha256, **facts}


def _checkpoint_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    identity = identify(checkpoint)
    infos = checkpoint.tensors
    return {
        "files": [str(file) for file in checkpoint.files],
        "format": checkpoint.format,
        "num_bytes": checkpoint.num_bytes,
        "num_tensors": len(infos),
        "num_parameters": sum(info.num_elements for info in infos.values()),
        "dtypes": dict(Counter(info.dtype for info in infos.values())),
        "metadata": checkpoint.metadata,
        "what": identity.what,
        "presets": list(identity.presets),
        "publication": identity.publication,
        "licence": identity.licence,
    }


def _check_finite(checkpoint: Checkpoint, num_all: int, progress: Progress) -> None:
    num_read = 0
    for entry in plan_as_is(checkpoint).entries.values():
        num_read += read_finite(checkpoint, entry).numel()
        progress(f"reading {checkpoint.path.name}", num_read / max(num_all, 1))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASHED_B):
            digest.update(block)
    return digest.hexdigest()


def _preset_report(preset: Preset, folders: list[Path]) -> dict[str, Any]:
    files = [_file_report(preset, wanted, folders) for wanted in preset.files]
    return {
        "name": preset.name,
        "summary": preset.summary,
        "num_parameters": preset.num_parameters,
        "publication": preset.publication,
        "ok": all(file["path"] for file in files if file["is_needed"]),
        "files": files,
    }


def _file_report(preset: Preset, wanted: WantedFile, folders: list[Path]) -> dict[str, Any]:
    path = None
    try:
        path = find_file(preset, wanted, folders)
        problem = None if path else "; ".join(incomplete(wanted, folders)) or None
    except InputError as error:
        problem = str(error)
    return {
        "role": wanted.role,
        "label": wanted.label,
        "path": str(path) if path else None,
        "problem": problem,
        "is_needed": wanted.is_needed,
        "origin": wanted.origin,
        "licence": wanted.licence,
        "size_gb": wanted.size_gb,
        "note": wanted.note,
        "command": wanted.download_command("FOLDER"),
    }
