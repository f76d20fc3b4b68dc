"""A folder with a depth model, as its publisher laid it out: which backend reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspatio_sim.errors import InputError


def model_kind(model_folder: Path) -> str:
    """`da3` or `hf`, told from config.json."""
    config = read_config(model_folder)
    if str(config.get("model_name", "")).startswith("da3"):
        return "da3"
    if "model_type" in config:
        return "hf"
    raise InputError(f"{model_folder / 'config.json'}: neither model_name da3... (da3) nor model_type (hf) in it")


def read_config(model_folder: Path) -> dict[str, Any]:
    """A model folder's config.json."""
    path = model_folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): want a local folder with a depth model"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: is a {type(config).__name__}: want a JSON object")
    return config
