"""Video to geometry: a `Clip` enters, a `Reference` (frames, depth, K, poses, scale) leaves."""

from inspatio_sim.reconstruct.auto import BACKENDS, Method, Recipe, reconstruct
from inspatio_sim.reconstruct.protocol import Reconstruction, Reconstructor
from inspatio_sim.reconstruct.scale import ScaleRequest, to_reference

__all__ = [
    "BACKENDS",
    "Method",
    "Recipe",
    "Reconstruction",
    "Reconstructor",
    "ScaleRequest",
    "reconstruct",
    "to_reference",
]
