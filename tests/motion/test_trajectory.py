import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import inverse, se3_exp
from inspatio_sim.motion.orbit import Orbit, bounce_indices, sample_row, target_poses
from inspatio_sim.motion.trajectory import load_trajectory, parse_orbit, parse_tum, save_tum

relaxed = settings(deadline=None, max_examples=100)
rows = st.lists(st.floats(-60, 60), min_size=1, max_size=12)
WALK = se3_exp(np.random.default_rng(5).normal(size=(7, 6)) * 0.4)  # some poses, [7, 4, 4]
WALK_FROM_START = inverse(WALK[0]) @ WALK


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def matrix_lines(poses):
    return "\n".join(" ".join(repr(float(value)) for value in T.ravel()) for T in poses)


# Orbits


@relaxed
@given(rows, st.integers(2, 5))
def test_rows_pass_through_every_keyframe_without_overshoot(row, factor):
    num_samples = (len(row) - 1) * factor + 1
    samples = sample_row(row, num_samples)
    assert np.allclose(samples[::factor][: len(row)], row, atol=1e-9)
    assert samples.min() >= min(row) - 1e-9
    assert samples.max() <= max(row) + 1e-9


@relaxed
@given(rows, rows, rows, st.integers(1, 30))
def test_orbits_start_at_the_identity_and_stay_rigid(up_deg, left_deg, radius_m, num_frames):
    T = Orbit(up_deg=up_deg, left_deg=left_deg, radius_m=radius_m).poses(num_frames)
    assert T.shape == (num_frames, 4, 4)
    assert np.allclose(T[0], np.eye(4), atol=1e-12)
    assert np.allclose(inverse(T) @ T, np.eye(4), atol=1e-9)


@relaxed
@given(st.lists(st.floats(-60, 60), min_size=2, max_size=9), st.floats(0.5, 5))
def test_an_orbit_keeps_looking_at_its_centre(angles_deg, radius_m):
    left_deg = [0.0, *angles_deg]
    up_deg = [0.0, *reversed(angles_deg)]
    T = Orbit(up_deg=up_deg, left_deg=left_deg, radius_m=[radius_m]).poses(17)
    if np.ptp(left_deg) + np.ptp(up_deg) > 0:
        assert np.allclose(T[:, :3, 3] + radius_m * T[:, :3, 2], [0, 0, radius_m], atol=1e-9)


def test_up_is_up_and_left_is_left():
    risen = Orbit(up_deg=[0, 30], left_deg=[0], radius_m=[2]).poses(2)[1]
    assert np.allclose(risen[:3, 3], [0, -1.0, 2 - np.sqrt(3)])
    gone_left = Orbit(up_deg=[0], left_deg=[0, 30], radius_m=[2]).poses(2)[1]
    assert np.allclose(gone_left[:3, 3], [-1.0, 0, 2 - np.sqrt(3)])


def test_without_angles_the_radius_moves_straight_ahead():
    T = Orbit(up_deg=[0], left_deg=[0], radius_m=[0, -1, 1]).poses(5)
    assert np.allclose(T[:, :3, :3], np.eye(3))
    assert np.allclose(T[:, :2, 3], 0)
    assert np.allclose(T[[0, 2, 4], 2, 3], [0, -1, 1])
    assert -1 < T[1, 2, 3] < 0


def test_fitpack_misses_its_keyframes():
    row = [0.0, 3, -1, 2, 5, -4, 0]
    assert np.abs(sample_row(row, 7, "fitpack") - row).max() > 0.1
    assert np.array_equal(sample_row(row[:3], 5, "fitpack"), [0, 1.5, 3, 1, -1])


@pytest.mark.parametrize("rows", [([], [0], [0]), ([0], [np.nan], [0]), ([0], [0], [1e6]), ([[0]], [0], [0])])
def test_bad_orbits_are_refused(rows):
    with pytest.raises(InputError, match="orbit row"):
        Orbit(up_deg=rows[0], left_deg=rows[1], radius_m=rows[2])


def test_target_poses_of_a_clip_that_starts_at_the_origin():
    source = WALK_FROM_START
    path = Orbit(up_deg=[0, 10], left_deg=[0, 20], radius_m=[1]).poses(7)
    assert np.allclose(target_poses(source, path, follow_source=False), path)
    assert np.allclose(target_poses(source, path, follow_source=True), source @ path)


def test_bounce():
    assert bounce_indices(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert bounce_indices(1, 3).tolist() == [0, 0, 0]
    assert bounce_indices(9, 4).tolist() == [0, 2, 5, 8]


# Files


def test_an_orbit_file(tmp_path):
    path = write(tmp_path, "orbit.txt", "0 10 20 # up\n\n 0 0 0\n1 1 1 1 1\n")
    T = load_trajectory(path)
    assert T.shape == (5, 4, 4)
    assert np.allclose(T[-1, :3, 2], [0, np.sin(np.radians(20)), np.cos(np.radians(20))])  # above, looking down
    doubled = load_trajectory(path, 9, radius_scale=2.0)
    assert np.allclose(doubled[-1, :3, 3], 2 * T[-1, :3, 3])


def test_shared_trajectories(test_data):
    paths = sorted((test_data / "trajectories").glob("*.txt"))
    assert paths
    for path in paths:
        for num_frames in (1, 45, 200):
            T = load_trajectory(path, num_frames)
            assert np.allclose(T[0], np.eye(4), atol=1e-12)
            assert np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).sum() < 20


@pytest.mark.parametrize("name", ["walk.tum", "walk.txt"])
def test_tum_round_trip(tmp_path, name):
    times_s = np.cumsum([0.1, 0.2, 0.1, 0.4, 0.1, 0.1, 0.3])
    save_tum(tmp_path / name, WALK, times_s)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert np.allclose(load_trajectory(tmp_path / name), WALK_FROM_START, atol=1e-8)
    read_times_s, T_world_camera = parse_tum((tmp_path / name).read_text())
    assert np.allclose(read_times_s, times_s)
    assert np.allclose(T_world_camera, WALK, atol=1e-8)


def test_tum_is_resampled_over_its_own_time(tmp_path):
    path = write(tmp_path, "a.txt", "0 0 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n4 4 0 0 0 0 0 1\n5 5 0 0 0 0 0 1\n")
    assert np.allclose(load_trajectory(path, 11)[:, 0, 3], np.linspace(0, 5, 11))


@pytest.mark.parametrize("name", ["walk.npy", "walk.json", "walk.txt"])
def test_matrix_lists_both_ways(tmp_path, name):
    for convention, poses in (("camera-to-world", WALK), ("world-to-camera", inverse(WALK))):
        if name.endswith("npy"):
            np.save(tmp_path / name, poses)
        else:
            write(tmp_path, name, json.dumps(poses.tolist()) if name.endswith("json") else matrix_lines(poses))
        assert np.allclose(load_trajectory(tmp_path / name, convention=convention), WALK_FROM_START)


def test_matrices_do_not_guess_their_direction(tmp_path):
    path = write(tmp_path, "walk.txt", matrix_lines(WALK))
    with pytest.raises(InputError, match="walk.txt: is a list of matrices: say convention="):
        load_trajectory(path)


def test_three_lines_of_eight_are_not_guessed(tmp_path):
    path = write(tmp_path, "a.txt", "\n".join(["0 0 0 0 0 0 0 1"] * 3))
    with pytest.raises(InputError, match="a.txt: could be an orbit or tum: say which"):
        load_trajectory(path)
    assert load_trajectory(path, format="orbit").shape == (8, 4, 4)
    with pytest.raises(InputError, match="times do not increase"):
        load_trajectory(path, format="tum")


BAD_FILES = [
    ("empty.txt", b"", "is empty"),
    ("blank.txt", b" \n\n", "is empty"),
    ("comments.txt", b"# nothing\n", "no numbers"),
    ("two.txt", b"0 0\n0 0\n", "2 lines: want 3"),
    ("four.txt", b"0 0\n0 0\n0 0\n0 0\n", "4 lines: want 3"),
    ("words.txt", b"0 0\nup down\n0 0\n", "line 2 is 'up down': want numbers"),
    ("nan.txt", b"0 0\n0 nan\n0 0\n", "line 2 has NaN or inf"),
    ("angle.txt", b"0 0\n0 1e9\n0 0\n", "left_deg has a value"),
    ("binary.txt", bytes(range(256)), "is not a text file"),
    ("nul.txt", b"\0" * 64, "want numbers"),
    ("norm.tum", b"0 0 0 0 0 0 0 2\n", "quaternion of pose 0 has length 2"),
    ("zero.tum", b"0 0 0 0 0 0 0 0\n", "quaternion of pose 0"),
    ("order.tum", b"1 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "times do not increase"),
    ("far.tum", b"1 1e300 0 0 0 0 0 1\n", "beyond 1e"),
    ("short.tum", b"1 0 0 0 0 0 0 1\n2 0 0 0\n", "pose 1 has 4 numbers: want 8"),
]
BAD_MATRICES = [
    ("shape.json", b"[[1, 2], [3, 4]]", "want N x 4 x 4"),
    ("none.json", b"[]", "want N x 4 x 4"),
    ("object.json", b'{"poses": 1}', "json list"),
    ("ragged.json", b"[[1, 2], [3]]", "json list"),
    ("broken.json", b"[[", "json list"),
    ("deep.json", b"[" * 100_000, "json list"),
    ("fake.npy", b"not an array", "not an npy file"),
    ("left.txt", matrix_lines([np.diag([-1.0, 1, 1, 1])]).encode(), "left-handed"),
    ("scaled.txt", matrix_lines([np.diag([3.0, 3, 3, 1])]).encode(), "not a rigid motion"),
    ("nan.json", b"[[[NaN,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]]", "NaN or inf"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES + BAD_MATRICES)
def test_bad_files_are_refused_by_name_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    convention = "camera-to-world" if (name, content, message) in BAD_MATRICES else None
    with pytest.raises(InputError, match=message) as caught:
        load_trajectory(path, convention=convention)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"object\.npy: is not an npy"):
        load_trajectory(tmp_path / "object.npy", convention="camera-to-world")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", WALK)
    data = (tmp_path / "a.npy").read_bytes()
    promising = data.replace(b"(7, 4, 4), }" + 6 * b" ", b"(7999999, 4, 4), }")
    assert len(promising) == len(data)
    assert promising != data
    write(tmp_path, "huge.npy", promising)
    with pytest.raises(InputError, match=r"huge\.npy: is not an npy file \(ValueError\)"):
        load_trajectory(tmp_path / "huge.npy", convention="camera-to-world")


def test_huge_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: does not exist"):
        load_trajectory(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="is not a file"):
        load_trajectory(tmp_path)
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(10 * 2**30)  # sparse: takes no space
    with pytest.raises(InputError, match=r"huge\.txt: is larger than 64 MiB"):
        load_trajectory(tmp_path / "huge.txt")


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 0},
        {"num_frames": 10**9},
        {"format": "kitti"},
        {"convention": "c2w"},
        {"smoothing": "none"},
        {"radius_scale": np.nan},
        {"convention": "camera-to-world"},  # an orbit has none
    ],
)
def test_bad_options_are_refused(tmp_path, options):
    path = write(tmp_path, "orbit.txt", "0 1\n0 1\n1 1\n")
    with pytest.raises(InputError, match=str(next(iter(options.values())))):
        load_trajectory(path, **options)


numbers = st.floats(-1e3, 1e3).map(str) | st.sampled_from(["0", "1", "nan", "inf", "1e400", "x", "#", "1_0"])
lines = st.lists(numbers, max_size=17).map(" ".join)


@relaxed
@given(st.text() | st.lists(lines, max_size=5).map("\n".join))
def test_text_parsers_read_or_refuse(text):
    for parse in (parse_orbit, parse_tum):
        try:
            result = parse(text)
        except InputError:
            continue
        poses = result.poses(5) if isinstance(result, Orbit) else result[1]
        assert np.all(np.isfinite(poses))


@relaxed
@given(st.binary(max_size=400), st.sampled_from([".txt", ".tum", ".npy", ".json"]), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, suffix, has_header):
    header = {".npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': ", ".json": b"[[["}
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}"
    path.write_bytes(header.get(suffix, b"0 1 ") * has_header + data)
    try:
        T = load_trajectory(path, convention="camera-to-world" if suffix in header else None)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 (both outcomes are fine)
    else:
        assert np.all(np.isfinite(T))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "walk.tum"
    save_tum(path, WALK, np.arange(7.0))
    before = path.read_bytes()
    for times_s in (np.zeros(7), np.arange(6.0), [0, 1, 2, 3, 4, 5, np.nan]):
        with pytest.raises(InputError, match="times_s"):
            save_tum(path, WALK, times_s)
    assert path.read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder"):
        save_tum(tmp_path / "folder", WALK, np.arange(7.0))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "walk.tum"]
