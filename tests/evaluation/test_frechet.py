import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.frechet import FeatureStatistics, frechet_distance


def statistics(seed, dim=4):
    rng = np.random.default_rng(seed)
    return FeatureStatistics.of(rng.normal(size=(50, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 8))
def test_against_the_formula(seed_a, seed_b, dim):
    a, b = statistics(seed_a, dim), statistics(seed_b, dim)
    root = np.atleast_2d(sqrtm(a.covariance @ b.covariance)).real
    wanted = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_closed_forms():
    narrow = FeatureStatistics(mean=np.array([0.0]), covariance=np.array([[1.0]]))
    wide = FeatureStatistics(mean=np.array([2.0]), covariance=np.array([[9.0]]))
    assert frechet_distance(narrow, wide) == pytest.approx(2**2 + (3 - 1) ** 2)


def test_fewer_features_than_dimensions():
    rng = np.random.default_rng(0)
    a, b = (FeatureStatistics.of(rng.normal(size=(3, 16))) for _ in range(2))
    assert np.isfinite(frechet_distance(a, b))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="want N x D with N of at least 2"):
        FeatureStatistics.of(np.zeros((1, 4)))
    with pytest.raises(InputError, match="NaN or inf"):
        FeatureStatistics.of(np.full((5, 4), np.nan))
    with pytest.raises(InputError, match="want them from one network"):
        frechet_distance(statistics(0, 3), statistics(0, 4))
