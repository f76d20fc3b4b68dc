import math

import numpy as np

from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction.panorama.equirectangular import RangeMap, directions_around, rays_of
from inspatio_sim.reconstruction.panorama.merge_views import merged_range

CAMERA = Intrinsics.from_fov(math.radians(90), 64, 40)
DIRECTIONS = directions_around(CAMERA)


def box_range(num_rows: int) -> np.ndarray:
    return (np.array([2.0, 1.5, 3.0]) / np.maximum(np.abs(rays_of(num_rows)), 1e-9)).min(-1).astype(np.float32)


def views_of(range_m: np.ndarray) -> np.ndarray:
    range_map = RangeMap(range_m)
    return np.stack([range_map.depth_of(CAMERA, direction) for direction in DIRECTIONS])


def test_views_at_random_scales_become_one_surface():
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(0, 0.7, len(DIRECTIONS)))
    depth = (views_of(box_range(256)) * scales[:, None, None]).astype(np.float32)
    merged = merged_range(depth, CAMERA, DIRECTIONS)
    factor = merged.scales * scales
    np.testing.assert_allclose(factor / factor[0], 1, atol=0.01)
    ratio = merged.range_units / box_range(len(merged.range_units))
    error = np.abs(ratio / np.median(ratio) - 1)
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.99) < 0.05
    assert merged.disagreement_before > 0.2
    assert merged.disagreement_after < 0.01


def test_views_in_one_unit_keep_it():
    depth = views_of(box_range(128))
    depth[-1] *= 5  # the view straight up, which has its own unit
    unit_of = [0] * (len(DIRECTIONS) - 1) + [1]
    merged = merged_range(depth, CAMERA, DIRECTIONS, unit_of)
    assert np.ptp(merged.scales[:-1]) == 0
    np.testing.assert_allclose(merged.scales[0] / merged.scales[-1], 5, rtol=0.02)


def test_unknown_pixels_are_filled_by_other_views_or_stay_unknown():
    depth = views_of(box_range(128))
    depth[0, :, :32] = 0
    merged = merged_range(depth, CAMERA, DIRECTIONS)
    assert (merged.range_units > 0).mean() > 0.95
    depth[:] = 0
    depth[0] = 1
    alone = merged_range(depth, CAMERA, DIRECTIONS)
    assert 0.05 < (alone.range_units > 0).mean() < 0.3
    assert alone.disagreement_after == 0
