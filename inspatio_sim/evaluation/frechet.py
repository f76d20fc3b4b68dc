"""How far two sets of pictures are apart as sets: the Fréchet distance between their features' distributions.

Source: Heusel et al. 2017 (arXiv 1706.08500); which network gives the features is the caller's choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """A normal distribution fitted to features."""

    mean: Array  # [D]
    covariance: Array  # [D, D]

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> FeatureStatistics:
        """Fit to N features, of which there should be far more than D. [N, D]"""
        if features.ndim != 2 or len(features) < 2:
            raise InputError(f"features have shape {features.shape}: want N x D with N of at least 2")
        if not np.isfinite(features).all():
            raise InputError("features have NaN or inf: want finite numbers")
        values = features.astype(np.float64)
        return cls(mean=values.mean(0), covariance=np.atleast_2d(np.cov(values, rowvar=False)))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))."""
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of {len(a.mean)} and {len(b.mean)} numbers: want them from one network")
    root = _root(a.covariance)
    # (S_a S_b)^(1/2) has the eigenvalues of the symmetric (S_a^(1/2) S_b S_a^(1/2))^(1/2).
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0, None)).sum()
    apart = float(np.square(a.mean - b.mean).sum())
    return max(0.0, apart + float(np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared))


def _root(covariance: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
