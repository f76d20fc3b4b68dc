"""Weights: files on the disk go in; filled modules, or files in this package's form, come out."""

from inspatio_sim.checkpoints.files import Checkpoint, open_checkpoint
from inspatio_sim.checkpoints.find import find_weights
from inspatio_sim.checkpoints.load import load_weights
from inspatio_sim.checkpoints.presets import (
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
