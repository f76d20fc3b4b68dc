"""Weights: files on the disk go in; filled modules, or files in this package's form, come out."""

from inspatio_sim.checkpoints.files import Checkpoint, open_checkpoint
from inspatio_sim.checkpoints.find import find_weights
from inspatio_sim.checkpoints.load import load_weights
from inspatio_sim.checkpoints.presets import PRESETS, Preset, preset_by_name

__all__ = ["PRESETS", "Checkpoint", "Preset", "find_weights", "load_weights", "open_checkpoint", "preset_by_name"]
