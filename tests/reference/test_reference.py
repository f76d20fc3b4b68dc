import contextlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode, Provenance, Reference, ScaleCard

MODES = ["once", "loop", "ping-pong", "freeze", "slow", "reverse"]
END_MODES = ["once", "loop", "ping-pong"]


def make_reference(num_frames: int = 3, height_px: int = 12, width_px: int = 20) -> Reference:
    rng = np.random.default_rng(0)
    return Reference(
        frames_u8=rng.integers(0, 256, (num_frames, height_px, width_px, 3), np.uint8),
        depth_m=rng.uniform(0.5, 9, (num_frames, height_px, width_px)).astype(np.float32),
        intrinsics=Intrinsics.from_fov(1.0, width_px, height_px),
        T_world_camera=np.stack([pose_from(t_m=[0.1 * i, 0, 1 / 3]) for i in range(num_frames)]),
        fps=29.97,
        scale=ScaleCard(source="length", note="a ruler", metres_per_unit=1 / 7),
        provenance=Provenance(method="sfm", reason="it moves", quality={"inlier_share": 0.1}, warnings=("a", "b")),
        source="clip.mp4",
    )


# Clock


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("once", [0, 1, 2, 3, 3, 3, 3, 3]),
        ("loop", [0, 1, 2, 3, 0, 1, 2, 3]),
        ("ping-pong", [0, 1, 2, 3, 2, 1, 0, 1]),
        ("freeze", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("slow", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("reverse", [0, 1, 2, 3, 2, 1, 0, 1]),  # nothing lies before frame 0: it turns round there
    ],
)
def test_each_mode_from_the_start(mode: ClockMode, expected):
    assert Clock(4, mode=mode, slow_factor=2).advance(8).tolist() == expected


@pytest.mark.parametrize(
    ("ends", "expected"), [("once", [1, 0, 0, 0]), ("loop", [1, 0, 3, 2]), ("ping-pong", [1, 0, 1, 2])]
)
def test_reverse_at_frame_0_follows_the_clocks_own_mode(ends, expected):
    clock = Clock(4, mode=ends)
    clock.advance(3)
    assert clock.advance(4, "reverse").tolist() == expected


def test_mode_holds_for_one_call_only():
    clock = Clock(10)
    assert clock.advance(3, "freeze").tolist() == [0, 0, 0]
    assert clock.advance(2).tolist() == [1, 2]
    assert clock.advance(2, "freeze").tolist() == [2, 2]
    assert clock.advance(2).tolist() == [3, 4]


def test_slow_shows_each_frame_slow_factor_times_on_the_way_back_too():
    clock = Clock(3, mode="slow", slow_factor=2)
    assert clock.advance(10).tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 0, 0]


@given(num_frames=st.integers(1, 30))
def test_ping_pong_has_period_2n_minus_2(num_frames):
    period = max(2 * num_frames - 2, 1)
    idxs = Clock(num_frames).advance(3 * period)
    assert np.array_equal(idxs[:period], idxs[period : 2 * period])
    assert sorted(set(idxs)) == list(range(num_frames))
    if num_frames > 2:
        assert all(np.array_equal(idxs[:period], idxs[k : k + period]) is False for k in range(1, period))


calls = st.lists(st.tuples(st.integers(1, 40), st.sampled_from([None, *MODES])), max_size=12)


@given(num_frames=st.integers(1, 25), mode=st.sampled_from(MODES), slow_factor=st.integers(1, 7), calls=calls)
def test_indices_are_valid_and_neighbours_touch(num_frames, mode, slow_factor, calls):
    clock = Clock(num_frames, mode=mode, slow_factor=slow_factor)
    idxs = np.concatenate([[0], *(clock.advance(n, m) for n, m in calls)])
    assert idxs.min() >= 0
    assert idxs.max() < num_frames
    jumps = np.abs(np.diff(idxs))
    assert np.all((jumps <= 1) | (jumps == num_frames - 1))  # only a loop jumps, end to end


@given(
    num_frames=st.integers(1, 25),
    mode=st.sampled_from(["loop", "ping-pong"]),
    before=calls,
    num_back=st.integers(1, 60),
)
def test_reverse_then_forward_returns(num_frames, mode, before, num_back):
    clock = Clock(num_frames, mode=mode)
    clock.advance(1)
    for n, m in before:
        clock.advance(n, m)
    clock.advance(1)
    state = clock.state()
    clock.advance(num_back, "reverse")
    clock.advance(num_back)
    assert clock.state() == state


@given(num_frames=st.integers(1, 25), mode=st.sampled_from(MODES), before=calls, after=calls)
def test_a_restored_clock_goes_on_exactly(num_frames, mode, before, after):
    clock, other = Clock(num_frames, mode=mode), Clock(num_frames, mode=mode)
    for n, m in before:
        clock.advance(n, m)
    other.load_state(json.loads(json.dumps(clock.state())))
    for n, m in after:
        assert np.array_equal(clock.advance(n, m), other.advance(n, m))


@given(splits=st.lists(st.integers(1, 9), min_size=1, max_size=6), mode=st.sampled_from(MODES))
def test_many_small_steps_equal_one_large_step(splits, mode):
    parts = Clock(5, mode=mode)
    assert np.array_equal(np.concatenate([parts.advance(n) for n in splits]), Clock(5, mode=mode).advance(sum(splits)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Clock(0), "num_frames=0"),
        (lambda: Clock(3, slow_factor=0), "slow_factor=0"),
        (lambda: Clock(3, mode="backwards"), "clock mode 'backwards': want one of once, loop"),  # type: ignore[arg-type]
        (lambda: Clock(3).advance(0), "num_frames=0"),
        (lambda: Clock(3).advance(1, "fast"), "clock mode 'fast'"),  # type: ignore[arg-type]
        (lambda: Clock(3).load_state({"tick": 99, "has_started": True}), "clock state"),
        (lambda: Clock(3).load_state({"tick": 1.5, "has_started": True}), "clock state"),
        (lambda: Clock(3).load_state({}), "clock state"),
    ],
)
def test_clock_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()


# Files


def test_save_and_load_are_bit_exact(tmp_path):
    reference = make_reference()
    reference.save(tmp_path / "ref")
    loaded = Reference.load(tmp_path / "ref")
    for name in ("frames_u8", "depth_m", "T_world_camera"):
        ours, theirs = getattr(reference, name), getattr(loaded, name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()
    for name in ("intrinsics", "fps", "scale", "provenance", "source"):
        assert getattr(loaded, name) == getattr(reference, name)
    assert sorted(os.listdir(tmp_path)) == ["ref"]  # nothing temporary left
    assert sorted(os.listdir(tmp_path / "ref")) == ["frames", "geometry.safetensors", "preview.png", "reference.json"]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    reference = make_reference()
    reference.save(tmp_path / "a")
    reference.save(tmp_path / "b")
    for name in ("frames/000002.png", "geometry.safetensors", "reference.json", "preview.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_existing_folder_is_refused_then_swapped(tmp_path):
    make_reference(3).save(tmp_path / "ref")
    with pytest.raises(InputError, match="exists already"):
        make_reference(2).save(tmp_path / "ref")
    assert Reference.load(tmp_path / "ref").num_frames == 3
    make_reference(2).save(tmp_path / "ref", overwrite=True)
    assert Reference.load(tmp_path / "ref").num_frames == 2
    assert sorted(os.listdir(tmp_path)) == ["ref"]


def test_overwrite_never_deletes_foreign_files(tmp_path):
    make_reference().save(tmp_path / "ref")
    (tmp_path / "ref" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="thesis.txt"):
        make_reference().save(tmp_path / "ref", overwrite=True)
    assert (tmp_path / "ref" / "thesis.txt").exists()


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("inspatio_sim.reference.files.save_arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_reference().save(tmp_path / "ref")
    assert os.listdir(tmp_path) == []


def edit_meta(folder, **changes):
    meta = json.loads((folder / "reference.json").read_text())
    meta.update(changes)
    (folder / "reference.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_geometry(folder, **changes):
    save_file({**load_file(folder / "geometry.safetensors"), **changes}, folder / "geometry.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "reference.json").unlink(), r"reference\.json: cannot be read"),
        (lambda f: cut(f / "reference.json"), r"reference\.json: not JSON"),
        (lambda f: (f / "reference.json").write_text("[" * 100_000), r"reference\.json: not JSON"),
        (lambda f: (f / "reference.json").write_text("[]"), r"reference\.json: want a file whose format"),
        (lambda f: edit_meta(f, version=99), "version 99: this program reads version 1"),
        (lambda f: edit_meta(f, scale=None), r"reference\.json: 'scale' is missing"),
        (lambda f: edit_meta(f, scale={"source": "guess", "note": ""}), "scale source 'guess'"),
        (lambda f: edit_meta(f, intrinsics={"evil": 1}), r"reference\.json"),
        (lambda f: edit_meta(f, num_frames=-1), "-1 frames"),
        (lambda f: edit_meta(f, height_px=10**9), "more than any memory holds"),
        (lambda f: edit_meta(f, num_frames=2), r"geometry\.safetensors: depth_m is F32"),
        (lambda f: edit_meta(f, fps=30.0), "does not match its fingerprint"),
        (lambda f: (f / "geometry.safetensors").unlink(), r"geometry\.safetensors: cannot be read"),
        (lambda f: cut(f / "geometry.safetensors"), r"geometry\.safetensors: not a sound safetensors file"),
        (lambda f: with_geometry(f, depth_m=np.ones((3, 5, 5), np.float32)), r"geometry\.safetensors: depth_m is F32"),
        (lambda f: with_geometry(f, T_world_camera=np.zeros((3, 4, 4))), "T_world_camera"),
        (lambda f: with_geometry(f, extra=np.zeros(1)), r"geometry\.safetensors: holds"),
        (lambda f: with_geometry(f, depth_m=np.full((3, 12, 20), np.nan, np.float32)), "NaN"),
        (lambda f: (f / "frames" / "000001.png").unlink(), r"000001\.png: cannot be read"),
        (lambda f: (f / "frames" / "000002.png").unlink(), r"000002\.png: missing"),
        (lambda f: cut(f / "frames" / "000001.png"), r"000001\.png|fingerprint"),
        (lambda f: (f / "frames" / "000001.png").write_text("hello"), r"000001\.png: cannot be read"),
    ],
)
def test_damaged_folders_are_refused_by_name(tmp_path, damage, message):
    make_reference().save(tmp_path / "ref")
    damage(tmp_path / "ref")
    with pytest.raises(InputError, match=message) as caught:
        Reference.load(tmp_path / "ref")
    assert "\n" not in str(caught.value)


def test_load_of_no_folder(tmp_path):
    with pytest.raises(InputError, match="want a folder made by Reference.save"):
        Reference.load(tmp_path / "nothing")


def test_fingerprint_follows_content_not_place():
    reference = make_reference()
    assert replace(reference, source="elsewhere.mp4").fingerprint() == reference.fingerprint()
    depth_m = reference.depth_m.copy()
    depth_m[-1, -1, -1] = np.nextafter(depth_m[-1, -1, -1], 0)
    changed = [
        replace(reference, depth_m=depth_m),
        replace(reference, frames_u8=reference.frames_u8[:, ::-1]),
        replace(reference, fps=30.0),
        replace(reference, provenance=replace(reference.provenance, warnings=())),
    ]
    assert len({reference.fingerprint(), *(other.fingerprint() for other in changed)}) == 5


@settings(max_examples=20, deadline=None)
@given(cut_at=st.integers(0, 2000), value=st.integers(0, 255))
def test_any_changed_byte_of_the_meta_is_noticed_or_harmless(tmp_path_factory, cut_at, value):
    folder = tmp_path_factory.mktemp("fuzz") / "ref"
    reference = make_reference()
    reference.save(folder)
    data = bytearray((folder / "reference.json").read_bytes())
    data[cut_at % len(data)] = value
    (folder / "reference.json").write_bytes(bytes(data))
    with contextlib.suppress(InputError):
        assert Reference.load(folder).fingerprint() == reference.fingerprint()


def test_a_saved_reference_is_no_clip(tmp_path):
    """Its preview is a picture in a folder, but no place."""
    make_reference().save(tmp_path / "ref")
    for read in (clip_files, read_clip):
        with pytest.raises(InputError, match=r"ref: a saved reconstruction: want the clip .*Reference\.load"):
            read(tmp_path / "ref")
