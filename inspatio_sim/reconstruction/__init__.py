"""Video to geometry: a `Clip` enters, a `Reference` (frames, depth, K, poses, scale) leaves."""

from inspatio_sim.reconstruction.auto import BACKENDS, Method, Recipe, reconstruct
from inspatio_sim.reconstruction.protocol import Reconstruction, Reconstructor
from inspatio_sim.reconstruction.scale import ScaleRequest, to_reference

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
