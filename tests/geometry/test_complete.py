"""Depth completion: known pixels stay, planes stay planes, emptiness falls back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.geometry.complete import complete_depth


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_known_pixels_stay_and_holes_stay_within_their_range(height, width, seed, share):
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(0.5, 20, (height, width)).astype(np.float32)
    depth_m[rng.uniform(size=depth_m.shape) > share] = 0
    is_known = depth_m > 0
    result = complete_depth(depth_m, fallback_m=3.0)
    assert result.dtype == np.float32
    assert np.array_equal(result[is_known], depth_m[is_known])
    low, high = (depth_m[is_known].min(), depth_m[is_known].max()) if is_known.any() else (3.0, 3.0)
    assert result.min() >= low * 0.999
    assert result.max() <= high * 1.001


def test_a_hole_in_a_plane_is_filled_with_the_plane():
    v, u = np.mgrid[:120, :200]
    plane_m = (1 / (0.2 + 0.0005 * u + 0.001 * v)).astype(np.float32)
    depth_m = plane_m.copy()
    depth_m[40:80, 60:140] = 0
    error = np.abs(complete_depth(depth_m, 3.0) / plane_m - 1)
    assert error.max() < 0.05
