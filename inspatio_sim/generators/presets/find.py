"""Where the files of a preset lie, or what to do to get them."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from inspatio_sim.checkpoints.files import SHIPPED, open_checkpoint
from inspatio_sim.checkpoints.wanted import Role, WantedFile
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.identify import identify, looks_like
from inspatio_sim.generators.presets.registry import Preset, preset_by_name

ENVIRONMENT = "INSPATIO_WEIGHTS"

_DEPTHS = ("", "*/", "*/*/")


def weights_folders(folder: str | Path | None = None) -> list[Path]:
    """Where weights are looked for: the folder named, else that of INSPATIO_WEIGHTS; then the package's own.

    Raises:
        InputError: the folder is not there.
    """
    source = "weights folder"
    if folder is None and os.environ.get(ENVIRONMENT):
        folder, source = os.environ[ENVIRONMENT], f"{ENVIRONMENT}"
    if folder is None:
        return [SHIPPED]
    if not Path(folder).is_dir():
        raise InputError(f"{source} {folder}: no such folder")
    return [Path(folder), SHIPPED]


def find_weights(preset: Preset | str, folder: str | Path | None = None) -> dict[Role, Path]:
    """The files of a preset, by role; those that it can do without are left out where they are not found.

    Args:
        preset: of the registry.
        folder: looked through two levels deep; by default see `weights_folders`.

    Raises:
        InputError: files are missing: each one, where it is published, its licence, and the command to run next.
        CheckpointMismatch: a transformer by that name is another model.
    """
    preset = preset if isinstance(preset, Preset) else preset_by_name(preset)
    folders = weights_folders(folder)
    found: dict[Role, Path | None] = {wanted.role: find_file(preset, wanted, folders) for wanted in preset.files}
    missing = [wanted for wanted in preset.files if wanted.is_needed and found[wanted.role] is None]
    if missing:
        target = folder or os.environ.get(ENVIRONMENT)
        parts = "; ".join(
            "".join(f"{text}, of " for text in incomplete(wanted, folders)) + missing_text(wanted, target or "weights")
            for wanted in missing
        )
        if target is None and any(wanted.download_command("") for wanted in missing):
            parts += f"; then name the folder, as an argument or in {ENVIRONMENT}"
        raise InputError(f"preset {preset.name}: {len(missing)} files are not in {folders[0]}: {parts}")
    return {role: path for role, path in found.items() if path is not None}


def find_file(preset: Preset, wanted: WantedFile, folders: list[Path]) -> Path | None:
    """One file of a preset, or a folder with all that is wanted in it; None if there is none by its name.

    Raises:
        CheckpointMismatch: there are transformers by that name, but none is this preset's.
        InputError: a transformer by that name cannot be read.
    """
    if wanted.holds:
        return next((place for place in _places(wanted, folders) if not wanted.missing_in(place)), None)
    candidates = [path for path in _called(wanted, folders) if path.is_file()]
    if wanted.role != "transformer":
        return candidates[0] if candidates else None
    mismatch: CheckpointMismatch | None = None
    for path in candidates:  # Wan's two sizes have the same file name, and so has an autoencoder of diffusers
        with open_checkpoint(path) as checkpoint:
            identity = identify(checkpoint)
            if preset.name in identity.presets:
                return path
            if identity.is_transformer and mismatch is None:
                what = looks_like(checkpoint)
                mismatch = CheckpointMismatch(f"{path}: not the transformer of {preset.name}: it is {what}")
    if mismatch:
        raise mismatch
    return None


def incomplete(wanted: WantedFile, folders: list[Path]) -> list[str]:
    """What folders by a wanted one's name lack, a line each."""
    lacking = {place: wanted.missing_in(place) for place in _places(wanted, folders)} if wanted.holds else {}
    return [f"{place} lacks {' and '.join(names)}" for place, names in lacking.items() if names]


def missing_text(wanted: WantedFile, folder: str | Path) -> str:
    """One missing file: what, where from, under which licence, and what to type."""
    size = f", {wanted.size_gb:g} GB" if wanted.size_gb else ""
    note = f"; {wanted.note}" if wanted.note and wanted.note != wanted.origin else ""
    holds = f" with {' and '.join(wanted.holds)}" if wanted.holds else ""
    command = wanted.download_command(shlex.quote(str(folder)))
    run = f": run {command}" if command else ""
    return f"{wanted.role} {wanted.label}{holds} ({wanted.origin}{size}, licence: {wanted.licence}{note}){run}"


def _called(wanted: WantedFile, folders: list[Path]) -> list[Path]:
    """All that has one of the names of a wanted file or folder, best first."""
    return [
        path
        for folder in folders
        for name in wanted.names
        for depth in _DEPTHS
        for path in sorted(folder.glob(f"{depth}{name}"))
    ]


def _places(wanted: WantedFile, folders: list[Path]) -> list[Path]:
    """Folders by a wanted one's name, without those that say they hold another model."""
    return [path for path in _called(wanted, folders) if path.is_dir() and _is_of_class(path, wanted.model_class)]


def _is_of_class(folder: Path, model_class: str) -> bool:
    """Whether a folder holds such a model of diffusers, or does not say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    stated = config.get("_class_name", "") if isinstance(config, dict) else ""
    return not (model_class and stated) or stated == model_class
