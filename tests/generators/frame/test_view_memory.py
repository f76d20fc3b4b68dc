import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import save_arrays
from inspatio_sim.generators.frame.selection import select_view
from inspatio_sim.generators.frame.view_memory import SELECTION, View, ViewMemory
from inspatio_sim.motion.camera import Intrinsics, se3_exp
from tests.mapping.synthetic import INTRINSICS, look, room_depth

HALL = ((-6.0, -1.3, -6.0), (6.0, 1.1, 6.0))
POSTS = (((-2.5, -1.3, -2.5), (-2.2, 1.1, -2.2)), ((1.0, -1.3, 2.0), (1.6, 0.2, 2.6)))


def depth_at(T_world_camera, intrinsics=INTRINSICS):
    return room_depth(T_world_camera, room=HALL, boxes=POSTS, intrinsics=intrinsics)


def view_at(T_world_camera, frame_idx=None, seed=0, depth_m=None):
    latent = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(seed))
    depth_m = depth_at(T_world_camera) if depth_m is None else depth_m
    return View.of(latent, depth_m, INTRINSICS, T_world_camera, frame_idx)


def random_pose(rng):
    return look(rng.uniform(-np.pi, np.pi), rng.uniform([-1.8, -0.5, -1.8], [0.8, 0.5, 1.8]), rng.uniform(-0.2, 0.2))


def filled(num_views, max_views=32, seed=0, num_reference=0):
    """Views at random places, the first ones of the reference."""
    rng = np.random.default_rng(seed)
    memory = ViewMemory(max_views=max_views)
    for i in range(num_views):
        memory = memory.with_view(view_at(random_pose(rng), i if i < num_reference else None, seed=i))
    return memory


def coverage_plain(views):
    """Every pair from scratch. [N, N]"""
    memory = ViewMemory(max_views=len(views), views=tuple(views), coverage=np.zeros((len(views),) * 2, np.float32))
    rows = [select_view(view.depth_m, view.K_px, view.T_world_camera, memory.table, SELECTION) for view in views]
    coverage = np.stack([row.score_per_view / row.num_samples for row in rows])
    np.fill_diagonal(coverage, 0)
    return coverage


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), num_views=st.integers(1, 6))
def test_a_view_selects_itself_from_its_own_pose(seed, num_views):
    rng = np.random.default_rng(seed)
    spots = rng.permutation(6)[:num_views]  # more than a metre apart: no other counts as much
    poses = [look(rng.uniform(-np.pi, np.pi), [-1.5 + 1.2 * (s % 3), 0, -2 + 1.2 * (s // 3)]) for s in spots]
    memory = ViewMemory()
    for T_world_camera in poses:
        memory = memory.with_view(view_at(T_world_camera))
    assert [memory.select(depth_at(T), INTRINSICS, T) for T in poses] == list(range(num_views))
    assert not any(memory.is_novel(depth_at(T), INTRINSICS, T) for T in poses)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_moving_the_world_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    T_new_old = se3_exp(np.concatenate([rng.normal(0, 5, 3), rng.normal(0, 2, 3)]))
    here, there = ViewMemory(max_views=4), ViewMemory(max_views=4)
    for i in range(7):
        T_world_camera = random_pose(rng)
        T_query, depth_m = random_pose(rng), depth_at(T_world_camera)
        here = here.with_view(view_at(T_world_camera, seed=i))
        there = there.with_view(view_at(T_new_old @ T_world_camera, seed=i, depth_m=depth_m))
        for depth in (depth_at(T_query), np.zeros_like(depth_m)):
            moved = (depth, INTRINSICS, T_new_old @ T_query)
            assert here.select(depth, INTRINSICS, T_query) == there.select(*moved)
            assert here.is_novel(depth, INTRINSICS, T_query) == there.is_novel(*moved)
        np.testing.assert_allclose(here.coverage, there.coverage, atol=1e-6)
    for kept, kept_there in zip(here.views, there.views, strict=True):
        assert torch.equal(kept.latent, kept_there.latent)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), max_views=st.integers(1, 5), is_reference=st.lists(st.booleans(), max_size=12))
def test_there_is_a_bound_and_the_reference_stays(seed, max_views, is_reference):
    rng = np.random.default_rng(seed)
    memory = ViewMemory(max_views=max_views)
    for i, of_reference in enumerate(is_reference):
        view = view_at(random_pose(rng), i if of_reference else None)
        offered = {id(each): each for each in (*memory.views, view)}
        memory = memory.with_view(view)
        assert len(memory) == min(i + 1, max_views)
        gone = [each for each in offered.values() if each not in memory.views]
        assert len(gone) <= 1
        if gone and not gone[0].is_generated:
            assert not any(each.is_generated for each in offered.values())


def test_coverage_kept_up_is_coverage_from_scratch():
    rng = np.random.default_rng(3)
    memory = ViewMemory(max_views=5)
    for i in range(9):
        memory = memory.with_view(view_at(random_pose(rng), i if i == 2 else None))
        np.testing.assert_allclose(memory.coverage, coverage_plain(memory.views), atol=1e-6)
    assert memory.coverage.max() > 0.2  # some do see the same places


def test_the_most_redundant_view_goes():
    left, right, nearly_left = (view_at(look(yaw)) for yaw in (-1.0, 1.0, -0.9))
    memory = ViewMemory(max_views=2).with_view(left).with_view(right).with_view(nearly_left)
    assert right in memory.views
    again = ViewMemory(max_views=2).with_view(left).with_view(right).with_view(view_at(look(-1.0)))
    assert again.views == (left, right)  # of equal ones the newest
    reference = view_at(look(-1.0), frame_idx=7)
    mixed = ViewMemory(max_views=2).with_view(reference).with_view(left).with_view(right)
    assert mixed.views == (reference, right)
    blind = view_at(look(2.5), depth_m=np.zeros((64, 96), np.float32))  # what shows nothing goes first
    assert ViewMemory(max_views=2).with_view(left).with_view(blind).with_view(right).views == (left, right)


def test_a_memory_is_never_changed():
    memory = filled(4, max_views=4)
    before, packed = memory.views, memory.pack()
    grown = memory.with_view(view_at(look(0.3)))
    assert memory.views == before
    assert grown.views != before
    for name, array in memory.pack().items():
        np.testing.assert_array_equal(array, packed[name])


def test_later_changes_of_what_came_in_do_not_reach_a_view():
    latent, depth_m, T_world_camera = torch.ones(4, 8, 12), depth_at(look(0.0)), look(0.0)
    view = View.of(latent, depth_m, INTRINSICS, T_world_camera)
    latent.zero_()
    depth_m[:] = 9
    T_world_camera[:3, 3] = 9
    assert view.latent.min() == 1
    np.testing.assert_array_equal(view.depth_m, depth_at(look(0.0)))
    np.testing.assert_array_equal(view.T_world_camera, look(0.0))


@pytest.mark.parametrize("size_px", [(480, 832), (512, 512), (96, 160), (97, 161), (3, 1000)])
def test_reduced_depth_has_intrinsics_of_its_own(size_px):
    """The reduced image is exactly what a smaller camera sees."""
    height_px, width_px = size_px
    intrinsics = Intrinsics.from_fov(1.2, width_px, height_px)
    T_world_camera = look(0.4, [-1, 0, 0.5], 0.1)
    view = View.of(torch.zeros(4, 1, 1), depth_at(T_world_camera, intrinsics), intrinsics, T_world_camera)
    height_px, width_px = view.depth_m.shape
    assert width_px <= 160
    smaller = Intrinsics.from_matrix(view.K_px, width_px, height_px)
    np.testing.assert_allclose(view.depth_m, depth_at(T_world_camera, smaller), rtol=1e-5)


def test_big_frames_select_as_small_ones_do():
    intrinsics = Intrinsics.from_fov(1.3, 240, 144)
    memory, poses = ViewMemory(), [look(yaw, [x, 0, 0]) for yaw, x in ((0, 0), (1.2, 0), (0, -1.4), (3.0, 0))]
    for T_world_camera in poses:
        memory = memory.with_view(
            View.of(torch.zeros(4, 1, 1), depth_at(T_world_camera, intrinsics), intrinsics, T_world_camera)
        )
    assert [memory.select(depth_at(T, intrinsics), intrinsics, T) for T in poses] == [0, 1, 2, 3]
    assert not any(memory.is_novel(depth_at(T, intrinsics), intrinsics, T) for T in poses)


def test_unknown_depth_is_stored_as_zero():
    depth_m = depth_at(look(0.0))
    depth_m[:5], depth_m[5:9] = np.nan, np.inf
    view = view_at(look(0.0), depth_m=depth_m)
    assert not view.depth_m[:9].any()
    assert view.depth_m[9:].all()


def test_where_nothing_is_rendered_the_nearest_camera_is_taken():
    nothing = np.zeros((64, 96), np.float32)
    poses = [look(0.0), look(np.pi / 2), look(np.pi), look(0.0, [0, 0, 3])]
    memory = ViewMemory()
    for T_world_camera in poses:
        memory = memory.with_view(view_at(T_world_camera))
    assert memory.select(nothing, INTRINSICS, look(0.3)) == 0
    assert memory.select(nothing, INTRINSICS, look(1.4, [0.5, 0, 0])) == 1
    assert memory.select(nothing, INTRINSICS, look(-2.6)) == 2
    assert memory.select(nothing, INTRINSICS, look(0.2, [0, 0, 2.4])) == 3
    elsewhere = np.full((64, 96), 50.0, np.float32)  # rendered, but no view shows any of it
    assert memory.select(elsewhere, INTRINSICS, look(-2.6)) == 2


def test_views_of_the_reference_alone_may_be_asked_for():
    nothing = np.zeros((64, 96), np.float32)
    memory = (
        ViewMemory().with_view(view_at(look(0.0))).with_view(view_at(look(0.5), 3)).with_view(view_at(look(2.0), 8))
    )
    depth_m = depth_at(look(0.0))
    assert memory.select(depth_m, INTRINSICS, look(0.0)) == 0
    assert memory.select(depth_m, INTRINSICS, look(0.0), of_reference=True) == 1
    assert memory.select(nothing, INTRINSICS, look(-0.2), of_reference=True) == 1
    assert memory.select(nothing, INTRINSICS, look(1.6), of_reference=True) == 2
    generated = filled(3)
    chosen = generated.select(depth_m, INTRINSICS, look(0.0))
    assert generated.select(depth_m, INTRINSICS, look(0.0), of_reference=True) == chosen  # there are none


def test_what_is_novel():
    empty = ViewMemory()
    assert empty.is_novel(depth_at(look(0.0)), INTRINSICS, look(0.0))
    memory = empty.with_view(view_at(look(0.0)))
    shares = [look(0.05), look(0.0, [0.05, 0, 0]), look(0.0, [0, 0, 0.2])]
    assert not any(memory.is_novel(depth_at(T), INTRINSICS, T) for T in shares)
    new = [look(1.0), look(np.pi), look(0.0, [3.5, 0, 0])]
    assert all(memory.is_novel(depth_at(T), INTRINSICS, T) for T in new)
    assert not memory.is_novel(np.zeros((64, 96), np.float32), INTRINSICS, look(1.0))


def test_a_closer_look_is_novel():
    """All of it was seen, from too far away to tell details."""
    intrinsics = Intrinsics.from_fov(1.2, 96, 64)
    far, near = look(0.0), look(0.0, [0, 0, 10])
    wall = np.full((64, 96), 12.0, np.float32)
    memory = ViewMemory().with_view(View.of(torch.zeros(4, 1, 1), wall, intrinsics, far))
    assert memory.is_novel(wall - 10, intrinsics, near)
    assert not memory.is_novel(wall - 2, intrinsics, look(0.0, [0, 0, 2]))


@pytest.mark.parametrize("num_reference", [0, 2, 5])
def test_packed_and_unpacked(tmp_path, num_reference):
    memory = filled(5, max_views=5, num_reference=num_reference)
    arrays = memory.pack()
    assert ("latent" in arrays) == (num_reference < 5)
    save_arrays(arrays, tmp_path / "memory.safetensors")
    again = ViewMemory.unpack(load_file(tmp_path / "memory.safetensors"), filled(5, num_reference=5).views)
    assert again.max_views == memory.max_views
    for _ in range(2):  # the second time with one view more, which pushes another out
        for view, same in zip(memory.views, again.views, strict=True):
            assert view.frame_idx == same.frame_idx
            assert torch.equal(view.latent, same.latent)
            for name in ("depth_m", "K_px", "T_world_camera"):
                np.testing.assert_array_equal(getattr(view, name), getattr(same, name))
        np.testing.assert_array_equal(memory.coverage, again.coverage)
        view = view_at(look(0.5, [1, 0, 1]), seed=9)
        memory, again = memory.with_view(view), again.with_view(view)


def test_an_empty_memory_is_packed_too():
    again = ViewMemory.unpack(ViewMemory(max_views=3).pack(), [])
    assert (len(again), again.max_views) == (0, 3)


def test_many_insertions_stay_bounded():
    rng = np.random.default_rng(0)
    memory = ViewMemory(max_views=6)
    views = [view_at(random_pose(rng), seed=i) for i in range(20)]
    sizes = set()
    for i in range(200):
        memory = memory.with_view(views[i % 20])
        if i >= 6:
            sizes.add(sum(array.nbytes for array in memory.pack().values()))
    assert len(memory) == 6
    assert len(sizes) == 1


def test_bad_input():
    with pytest.raises(InputError, match="view memory is empty: want at least one view") as error:
        ViewMemory().select(depth_at(look(0.0)), INTRINSICS, look(0.0))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="max_views=0"):
        ViewMemory(max_views=0)
    memory = filled(1)
    with pytest.raises(InputError, match="depth image of"):
        memory.select(np.zeros((4, 4), np.float32), INTRINSICS, look(0.0))
    with pytest.raises(InputError, match="depth image of"):
        View.of(torch.zeros(4, 1, 1), np.zeros((4, 4), np.float32), INTRINSICS, look(0.0))
    with pytest.raises(InputError, match="want them as in the views already stored"):
        memory.with_view(View.of(torch.zeros(4, 1, 1), depth_at(look(0.0)), INTRINSICS, look(0.0)))
    arrays = filled(2, num_reference=2).pack()
    with pytest.raises(InputError, match="wants a view of reference frame 0"):
        ViewMemory.unpack(arrays, [])
