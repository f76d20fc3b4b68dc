import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.selection import (
    SelectionConfig,
    ViewTable,
    sample_depth,
    sample_pixels,
    select_view,
)
from inspatio_sim.motion.camera import Intrinsics, inverse, pose_from, se3_exp

INTRINSICS = Intrinsics.from_fov(1.1, 64, 40)


def rough_depth(rng, shape=(40, 64), unknown=0.1):
    """A curved surface with noise, some of it unknown."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    depth_m = 2 + rng.uniform(-1, 1) * rows + rng.uniform(-1, 1) * columns + rng.uniform(0, 0.05, shape)
    return np.where(rng.random(shape) < unknown, 0, depth_m).astype(np.float32)


def rough_pose(rng, spread_m=0.5, spread_rad=0.8):
    return se3_exp(np.concatenate([rng.normal(0, spread_m, 3), rng.normal(0, spread_rad, 3)]))


def rough_views(rng, num_views):
    return ViewTable(
        depth_m=np.stack([rough_depth(rng) for _ in range(num_views)]),
        K_px=INTRINSICS.K_px,
        T_world_camera=np.stack([rough_pose(rng) for _ in range(num_views)]),
    )


def hits_plain(depth_m, K_px, T_world_camera, views, config):
    """The formula, pixel for pixel. [N]"""
    hits = []
    for n in range(len(views)):
        height_px, width_px = views.depth_m[n].shape
        T_view_world = inverse(views.T_world_camera[n])
        hits.append(0)
        for column, row in sample_pixels(*depth_m.shape, config):
            if not depth_m[row, column] > 0:
                continue
            ray = np.linalg.inv(K_px) @ [column, row, 1]
            p_world = (T_world_camera @ [*(ray * float(depth_m[row, column])), 1])[:3]
            p_view = (T_view_world @ [*p_world, 1])[:3]
            if p_view[2] <= 0:
                continue
            u, v = np.rint((views.K_px @ p_view)[:2] / p_view[2]).astype(int)
            reach = range(-config.px_radius, config.px_radius + 1)
            stored = [
                views.depth_m[n][v + i, u + j]
                for i in reach
                for j in reach
                if 0 <= v + i < height_px and 0 <= u + j < width_px
            ]
            differences = [abs(depth - p_view[2]) for depth in stored if depth > 0]
            if not differences or min(differences) >= max(config.eps_rel * p_view[2], config.eps_abs_m):
                continue
            rays = [p_world - T[:3, 3] for T in (T_world_camera, views.T_world_camera[n])]
            cosine = rays[0] @ rays[1] / np.linalg.norm(rays[0]) / np.linalg.norm(rays[1])
            hits[-1] += np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= config.max_view_angle_deg
    return np.array(hits)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"eps_abs_m": 3.0},
        {"px_radius": 2},
        {"max_view_angle_deg": 20.0},
        {"uniform_sampling": True},
        {"px_radius": 1, "eps_abs_m": 0.3, "max_view_angle_deg": 60.0},
    ],
)
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32))
def test_the_kernel_is_the_formula(change, seed):
    rng = np.random.default_rng(seed)
    config = SelectionConfig(center_grid=6, **change)
    depth_m, T_world_camera, views = rough_depth(rng), rough_pose(rng), rough_views(rng, 3)
    selection = select_view(depth_m, INTRINSICS.K_px, T_world_camera, views, config)
    expected = hits_plain(depth_m, INTRINSICS.K_px, T_world_camera, views, config)
    assert (selection.hits_per_view == expected).all()
    assert selection.num_samples == sum(depth_m[row, column] > 0 for column, row in sample_pixels(40, 64, config))


def test_samples_are_denser_in_the_middle():
    config = SelectionConfig()
    pixels = sample_pixels(96, 160, config)
    assert len(np.unique(pixels, axis=0)) == len(pixels)
    assert (pixels.min(axis=0) == 0).all()
    assert (pixels.max(axis=0) == [159, 95]).all()
    is_middle = ((pixels > [39, 23]) & (pixels < [120, 72])).all(axis=1)
    assert is_middle.sum() == 15 * 15
    assert len(sample_pixels(96, 160, SelectionConfig(uniform_sampling=True))) == 100
    assert len(sample_pixels(1, 1, config)) == 1


def test_samples_lie_where_the_camera_sees_them():
    depth_m = np.full((40, 64), np.nan, np.float32)
    depth_m[0, 0], depth_m[0, -1], depth_m[-1, 0] = 3.0, np.inf, -1.0
    T_world_camera = pose_from(t_m=[1, 2, 3])
    samples = sample_depth(depth_m, INTRINSICS.K_px, T_world_camera, SelectionConfig())
    ray = np.linalg.inv(INTRINSICS.K_px) @ [0, 0, 1]
    np.testing.assert_allclose(samples.position_m, [3 * ray + [1, 2, 3]])


def wall_views(positions_m, depth_m=4.0):
    """Cameras that look at one wall, all in the same direction."""
    poses = np.stack([pose_from(t_m=position) for position in positions_m])
    depths = [np.full((40, 64), depth_m - position[2], np.float32) for position in positions_m]
    return ViewTable(depth_m=depths, K_px=INTRINSICS.K_px, T_world_camera=poses)


def select_at_wall(views, config, position_m=(0.0, 0.0, 0.0)):
    depth_m = np.full((40, 64), 4.0 - position_m[2], np.float32)
    return select_view(depth_m, INTRINSICS.K_px, pose_from(t_m=position_m), views, config)


def test_near_views_count_more():
    views = wall_views([[0, 0, -8.0], [0.6, 0, 0]])  # the first sees all of it, from far away
    unweighted = select_at_wall(views, SelectionConfig(use_distance_weight=False))
    assert unweighted.index == 0
    assert unweighted.hits == unweighted.num_samples > unweighted.hits_per_view[1] > 0
    weighted = select_at_wall(views, SelectionConfig(dist_max_m=10.0))
    assert weighted.index == 1
    assert weighted.score_per_view[0] == pytest.approx(weighted.num_samples * (1 - 7 / 9))
    assert weighted.score_per_view[1] == weighted.hits_per_view[1]


def test_what_stands_in_front_is_no_hit():
    views = wall_views([[0, 0, 0], [0, 0, 0]])
    views.depth_m[0][:, 20:] = 1.0  # a post hides the wall from this view
    selection = select_at_wall(views, SelectionConfig())
    assert selection.index == 1
    assert 0 < selection.hits_per_view[0] < selection.hits


def test_the_first_of_the_best_wins_and_nothing_to_sample_gives_zero():
    views = wall_views([[0, 0, 0], [0, 0, 0]])
    assert select_at_wall(views, SelectionConfig()).index == 0
    empty = np.zeros((40, 64), np.float32)
    selection = select_view(empty, INTRINSICS.K_px, np.eye(4), views, SelectionConfig())
    assert (selection.index, selection.hits, selection.num_samples) == (0, 0, 0)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_moving_the_world_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    depth_m, T_world_camera, views = rough_depth(rng), rough_pose(rng), rough_views(rng, 4)
    before = select_view(depth_m, INTRINSICS.K_px, T_world_camera, views, SelectionConfig())
    T_new_old = rough_pose(rng, spread_m=5, spread_rad=2)
    moved = ViewTable(depth_m=views.depth_m, K_px=views.K_px, T_world_camera=T_new_old @ views.T_world_camera)
    after = select_view(depth_m, INTRINSICS.K_px, T_new_old @ T_world_camera, moved, SelectionConfig())
    assert (after.hits_per_view == before.hits_per_view).all()
    assert after.index == before.index


def test_bad_input():
    with pytest.raises(InputError, match="no views are stored"):
        select_at_wall(
            ViewTable(depth_m=[], K_px=INTRINSICS.K_px, T_world_camera=np.zeros((0, 4, 4))), SelectionConfig()
        )
    with pytest.raises(InputError, match="want a 4x4 pose for each"):
        ViewTable(depth_m=np.zeros((2, 4, 4), np.float32), K_px=INTRINSICS.K_px, T_world_camera=np.eye(4)[None])
    for change in (
        {"sample_grid": 0},
        {"center_frac": 0.0},
        {"px_radius": -1},
        {"dist_min_m": 3.0, "dist_max_m": 3.0},
    ):
        with pytest.raises(InputError, match="want"):
            SelectionConfig(**change)
