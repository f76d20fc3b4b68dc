import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.reconstruction.sfm.densify import (
    DensifyConfig,
    SparsePoints,
    _smooth_rows,
    densify,
    fill_inverse_depth,
    smooth_along_colours,
)
from inspatio_sim.reconstruction.sfm.flow_depth import choose_neighbours, fuse, triangulate
from inspatio_sim.scenes.demo import demo_clip

CAMERA = Intrinsics.from_fov(1.2, 64, 48)
T_OTHER_CAMERA = pose_from(Rotation.from_rotvec([0.01, -0.03, 0.02]).as_matrix(), [-0.3, 0.05, 0.1])


def exact_flow(depth: np.ndarray, T_other_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow of a surface into the other camera, [H, W, 2], and its depth there."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(float)
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(CAMERA.K_px).T
    there = (rays * depth[..., None]) @ T_other_camera[:3, :3].T + T_other_camera[:3, 3]
    pixels = there @ CAMERA.K_px.T
    return (pixels[..., :2] / pixels[..., 2:] - np.stack([u, v], 2)).astype(np.float32), there[..., 2]


def returning(flow: np.ndarray) -> np.ndarray:
    """A backward flow field that undoes a smooth forward one."""
    back = -flow.copy()
    v, u = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    for _ in range(20):
        back = -cv2.remap(flow, u + back[..., 0], v + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return back


def test_triangulate_gives_the_depth_that_made_the_flow():
    v, u = np.mgrid[:48, :64]
    depth = 4 + 0.02 * u + 0.01 * v
    flow, _ = exact_flow(depth, T_OTHER_CAMERA)
    rho, sigma = triangulate(flow, returning(flow), CAMERA.K_px, T_OTHER_CAMERA)
    is_good = np.isfinite(sigma)
    assert is_good.mean() > 0.7
    np.testing.assert_allclose(1 / rho[is_good], depth[is_good], rtol=1e-3)


def test_triangulate_refuses_what_leaves_its_epipolar_line():
    flow, _ = exact_flow(np.full((48, 64), 4.0), T_OTHER_CAMERA)
    flow[20:30, 20:30, 1] += 4  # the baseline is sideways: this thing moved down by itself
    _, sigma = triangulate(flow, returning(flow), CAMERA.K_px, T_OTHER_CAMERA)
    assert np.isinf(sigma[21:29, 21:29]).all()


def test_fuse_takes_the_majority():
    inverse_depths = np.array([0.5, 0.51, 0.1, 0.505], np.float32).reshape(4, 1, 1)
    rho, precision = fuse(inverse_depths, np.full((4, 1, 1), 100.0, np.float32), 0.01)
    np.testing.assert_allclose(rho, (0.5 + 0.51 + 0.505) / 3, rtol=1e-5)
    assert precision > 0
    quarrel = np.array([0.5, 0.1], np.float32).reshape(2, 1, 1)
    assert fuse(quarrel, np.full((2, 1, 1), 100.0, np.float32), 0.01)[1] == 0
    assert fuse(quarrel, np.zeros((2, 1, 1), np.float32), 0.01)[1] == 0


def test_neighbours_are_taken_by_baseline_on_both_sides():
    centres = np.stack([0.101 * np.arange(20), np.zeros(20), np.zeros(20)], 1)
    assert choose_neighbours(centres, 10, median_depth=5.0) == [5, 8, 12, 15]
    assert choose_neighbours(np.zeros((20, 3)), 10, median_depth=5.0) == []


def test_smoothing_keeps_constants_and_stops_at_edges():
    guide = np.zeros((20, 30, 3), np.uint8)
    guide[:, 15:] = 255
    values = np.zeros((20, 30, 1))
    values[:, 15:] = 1
    config = DensifyConfig()
    smooth = smooth_along_colours(values, guide, 1000.0, config)
    np.testing.assert_allclose(smooth, values, atol=1e-3)
    np.testing.assert_allclose(smooth_along_colours(np.ones((20, 30, 1)), guide, 1000.0, config), 1, atol=1e-9)
    across = smooth_along_colours(values, np.zeros_like(guide), 1000.0, config)
    assert across[:, 15].mean() < 0.9


def test_smoothing_of_a_row_solves_its_linear_system():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(3, 12, 2)), rng.uniform(size=(3, 11))
    solved = _smooth_rows(values, weights, 5.0)
    for row in range(3):
        difference = np.diff(np.eye(12), axis=0)
        A = np.eye(12) + 5.0 * difference.T @ np.diag(weights[row]) @ difference
        np.testing.assert_allclose(solved[row], np.linalg.solve(A, values[row]), atol=1e-9)


def test_filling_keeps_objects_apart_by_colour():
    guide = np.zeros((40, 60, 3), np.uint8)
    guide[:, 30:] = 200
    truth = np.full((40, 60), 0.2, np.float32)
    truth[:, 30:] = 0.5
    precision = np.zeros_like(truth)
    precision[::7, ::7] = 1e4
    filled = fill_inverse_depth(truth * (precision > 0), precision, guide, DensifyConfig(), fallback=1.0)
    np.testing.assert_allclose(filled, truth, rtol=0.02)
    nothing = fill_inverse_depth(truth, np.zeros_like(truth), guide, DensifyConfig(), fallback=0.25)
    assert (nothing == 0.25).all()


def test_config_is_checked():
    with pytest.raises(InputError, match="colour_sigma=0"):
        DensifyConfig(colour_sigma=0)


@pytest.mark.slow
def test_dense_depth_of_the_demo_room():
    clip = demo_clip(8, (120, 200), fps=4.0)
    assert clip.depth_m is not None
    assert clip.intrinsics is not None
    assert clip.T_world_camera is not None
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, 120, 150), rng.integers(0, 200, 150)
    rays = np.stack([x, y, np.ones(150)], 1) @ np.linalg.inv(clip.intrinsics.K_px).T
    xyz = rays * clip.depth_m[0, y, x][:, None]
    shares = []
    dense = densify(
        clip.frames_u8,
        clip.intrinsics,
        clip.T_world_camera,
        SparsePoints(
            xyz=xyz @ clip.T_world_camera[0, :3, :3].T + clip.T_world_camera[0, :3, 3], seen_by=[np.arange(150)] * 8
        ),
        progress=shares.append,
    )
    assert dense.depth_units.shape == clip.depth_m.shape
    assert (dense.depth_units > 0).all()
    assert np.median(np.abs(dense.depth_units / clip.depth_m - 1)) <= 0.04
    assert dense.measured_share > 0.5
    assert shares[-1] == 1
    # the pictures matter: frames of one grey have nothing to triangulate
    grey = densify(
        np.full_like(clip.frames_u8, 128),
        clip.intrinsics,
        clip.T_world_camera,
        SparsePoints(xyz=xyz, seen_by=[np.arange(150)] * 8),
    )
    assert np.median(np.abs(dense.depth_units / clip.depth_m - 1)) < np.median(
        np.abs(grey.depth_units / clip.depth_m - 1)
    )
