"""Weights: files on the disk go in; filled modules, or files in this package's form, come out."""

from inspatio_sim.checkpoints.files import Checkpoint, open_checkpoint
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.presets.registry import (
    PRESETS,
    FramePreset,
    Preset,
    StarPreset,
    frame_preset,
    preset_by_name,
    star_preset,
)

__all__ = [
    "PRESETS",
    "Checkpoint",
    "FramePreset",
    "Preset",
    "StarPreset",
    "find_weights",
    "frame_preset",
    "load_weights",
    "open_checkpoint",
    "preset_by_name",
    "star_preset",
]
