import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

from benchmarks import ablations, quality
from benchmarks.quality_cases.charts import save_pictures
from benchmarks.quality_cases.features import (
    NUM_FEATURES,
    WEIGHTS,
    FeatureTraining,
    features_of,
    load_features,
    save_features,
    train,
)
from benchmarks.quality_cases.held_out import Turn, held_out, out_and_back, straight_on, to_and_fro
from benchmarks.quality_cases.latency import measure_latency
from benchmarks.quality_cases.play import RepeatGenerator, play
from benchmarks.quality_cases.real_clips import measure_clips
from benchmarks.quality_cases.results import drift_figures, floors, frame_floors, results_of
from benchmarks.quality_cases.run import Drift, QualityRun, Revisit, Turned, measure
from benchmarks.star_cases.machine import empty_cache_folder
from inspatio_sim.codecs import TinyAutoencoder, tiny_narrow
from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.drift import Rounds
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.generators.presets.registry import PRESETS, frame_preset, star_preset
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.training.data.target_view import target_view

SIZE_PX = (48, 80)
SHORT = ["--size", "48x80", "--frames", "9"]
CHANNELS = tiny_narrow().latent_channels
SMALL = StarConfig(
    dim=32,
    ffn_dim=64,
    num_heads=2,
    num_layers=2,
    text_dim=64,
    text_len=8,
    in_channels=2 * CHANNELS + 4,
    out_channels=CHANNELS,
)
SMALL_FRAME = FrameConfig(
    input_size=10,
    patch_size=1,
    in_channels=CHANNELS,
    mask_channels=1,
    hidden_size=32,
    depth=2,
    num_heads=2,
    learns_sigma=False,
    has_caption=False,
)


@pytest.fixture(scope="module")
def small_tiny():
    """The presets with networks so small that they take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", replace(star_preset("tiny"), star=SMALL))
        patch.setitem(PRESETS, "frame-tiny", replace(frame_preset("frame-tiny"), frame=SMALL_FRAME))
        yield


@pytest.fixture(scope="module")
def places():
    return held_out(range(900_000, 900_001), SIZE_PX, 9)


@pytest.fixture(scope="module")
def measured(small_tiny):
    run = QualityRun(
        seeds=range(900_000, 900_001),
        random_weights=True,
        teacher_steps=2,
        revisit_blocks=1,
        turn_frames=8,
        latency_steps=3,
        drift_blocks=4,
        size_px=SIZE_PX,
        num_frames=9,
    )
    with empty_cache_folder():
        return measure(run)


def test_walks(places):
    place = places[0]
    assert straight_on(place).frame_idx.tolist() == list(range(9))
    back = out_and_back(place)
    assert back.frame_idx.tolist() == [*range(9), *range(7, -1, -1)]
    assert np.array_equal(back.truth_u8[0], back.truth_u8[-1])
    assert to_and_fro(place, 20).frame_idx.tolist() == [*range(9), *range(7, 0, -1), 0, 1, 2, 3]


def test_turn_is_once_around_on_the_spot_and_back(places):
    turn = Turn(place=places[0], num_frames=8)
    poses = turn.T_world_camera
    assert poses.shape == (17, 4, 4)
    assert np.array_equal(poses, poses[::-1])
    assert np.array_equal(poses[8], poses[0])
    assert np.array_equal(poses[0], places[0].sample.T_world_target[-1])
    assert np.ptp(poses[:, :3, 3], axis=0).max() == 0
    right = poses[0, :3, 0]
    assert np.allclose(poses[2, :3, 2], right)  # a quarter of the way it looks to its right
    assert turn.frame_idx.tolist() == [8] * 17


def test_path_is_followed_and_the_last_pose_held(places):
    walks = [straight_on(place) for place in places]
    repeated = play(walks, RepeatGenerator(frames_per_block=4), "")
    for walk, played in zip(walks, repeated, strict=True):
        assert np.array_equal(played.frames_u8, walk.place.sample.reference_u8)
    one_by_one = [play([walk], WarpGenerator(frames_per_block=4), "")[0] for walk in walks]
    for alone, together in zip(one_by_one, play(walks, WarpGenerator(frames_per_block=4), ""), strict=True):
        assert np.array_equal(alone.frames_u8, together.frames_u8)


def test_without_a_map_the_render_is_what_training_shows(places):
    (played,) = play([straight_on(places[0])], WarpGenerator(frames_per_block=4), "", has_map=False)
    view = target_view(places[0].sample)
    assert np.array_equal(played.render_u8, view.render_u8)
    assert np.array_equal(played.known > 0, view.is_rendered)


def test_map_makes_more_known(places):
    walks = [straight_on(place) for place in places]
    with_map, without = (play(walks, WarpGenerator(frames_per_block=4), "", has_map=has) for has in (True, False))
    known, fewer = (sum(int((played.known > 0).sum()) for played in some) for some in (with_map, without))
    assert known > fewer


def test_every_figure_is_there(measured):
    assert all(np.isfinite(result.value) for result in results_of(measured))
    wanted = {
        "tiny",
        "tiny, 2 steps",
        "tiny, 1 step",
        "tiny, nothing pasted",
        "tiny, no map",
        "codec alone",
        "frame-tiny",
        "frame-tiny, 1 step",
        "teacher",
        "warp",
        "last-frame",
    }
    assert set(measured.methods) == wanted
    assert {result.name for result in floors(measured)} == {
        "tiny less warp: PSNR, unknown pixels",
        "tiny less warp: PSNR",
        "tiny over warp: Fréchet distance",
        "tiny: camera, rotation",
        "tiny: camera, translation",
        "teacher less tiny, no map: PSNR",
        "tiny: way back to way out",
        "tiny: mean of a round, drift",
        "tiny: variance of a round, drift",
        "tiny: motion in the last round over the truth's",
        "frame-tiny less warp: PSNR, unknown pixels",
        "frame-tiny less frame-tiny, 1 step: PSNR",
        "frame-tiny less frame-tiny, 1 step: PSNR, unknown pixels",
        "frame-tiny: first frame again after a full turn",
        "frame-tiny: full turn back to full turn",
    }
    methods = measured.methods
    warp, student, pasted = (methods[name].means() for name in ("warp", "tiny, nothing pasted", "tiny"))
    assert warp["psnr_known_db"] > 25 > 15 > student["psnr_known_db"]  # never trained: noise
    assert warp["frechet_all"] < student["frechet_all"]
    assert pasted["psnr_known_db"] > 20 > 15 > pasted["psnr_unknown_db"]  # noise where nothing is known
    assert warp["rotation_deg"] < 1
    assert not student["rotation_deg"] < 1  # no camera is found in noise
    missed = {result.name for result in floors(measured) if not result.is_reached}
    never = "PSNR, unknown pixels"
    assert {f"tiny less warp: {never}", "tiny less warp: PSNR", f"frame-tiny less warp: {never}"} <= missed


def test_latency_is_of_one_world_and_counts_frames(measured):
    frames_per_step = {name: latency.frames_per_step for name, latency in measured.latencies.items()}
    assert frames_per_step == {
        "tiny": 12,
        "tiny, 2 steps": 12,
        "tiny, 1 step": 12,
        "frame-tiny": 1,
        "frame-tiny, 1 step": 1,
        "warp": 1,
    }
    assert all(0 < latency.p50_s <= latency.p95_s for latency in measured.latencies.values())
    names = {result.name for result in results_of(measured)}
    assert "frame-tiny: action to frames, 1 a step, p95" in names


def test_latency_walks_a_round_before_it_counts(places):
    shown = []
    latency = measure_latency(
        places[0], WarpGenerator(frames_per_block=4), 3, "warp", lambda what, share: shown.append(share)
    )
    assert len(shown) == 4 + 3  # a round of 16 frames
    assert latency.frames_per_step == 4


def test_turns_of_every_walker(measured):
    assert set(measured.turns) == {"tiny", "frame-tiny", "frame-tiny, 1 step", "warp"}
    warp = measured.turns["warp"]
    assert [turn.place for turn in warp] == ["900000 synthetic", "900000 photo"]
    for turn in warp:  # what it filled in is in the map, and comes back
        assert min(turn.around_db, turn.back_db) > 20
        assert turn.variance_over_clip > 0


def test_way_back_of_warp_ends_where_it_began(measured):
    assert all(revisit.to_way_out_db > 25 for revisit in measured.revisits["warp"])
    assert len(measured.revisits["tiny"]) == len(measured.revisits["frame-tiny, 1 step"]) == 2


def test_pictures_are_saved(measured, tmp_path):
    paths = save_pictures(measured, tmp_path)
    assert {"psnr.png", "ssim.png", "frechet.png", "drift-mean.png", "films-900000-photo.png"} <= {
        p.name for p in paths
    }
    assert all(path.stat().st_size > 1000 for path in paths)


def rounds(mean, variance, change):
    return Rounds(mean=np.array(mean), variance=np.array(variance), change=np.array(change))


def test_floors_are_reached_by_what_is_good_enough(measured):
    good, truth = rounds([100.0, 90.0], [50.0, 45.0], [4.0, 3.0]), rounds([100.0], [50.0], [4.0])
    changed = replace(
        measured,
        methods={
            **measured.methods,
            "tiny": measured.methods["codec alone"],
            "tiny, no map": measured.methods["teacher"],
        },
        revisits={"tiny": [Revisit(place="", to_way_out_db=20.0, to_truth_db=1.0)]},
        drifts={"tiny": [Drift(place="", film=good, truth=truth)]},
    )
    reached = {result.name: result.is_reached for result in floors(changed)}
    assert reached["teacher less tiny, no map: PSNR"]
    assert reached["tiny: way back to way out"]
    assert reached["tiny: mean of a round, drift"]
    assert reached["tiny: variance of a round, drift"]
    assert reached["tiny: motion in the last round over the truth's"]
    frozen = drift_figures([Drift(place="", film=rounds([1, 1.2], [1, 0.8], [4.0, 1.0]), truth=truth)])
    assert frozen["motion_kept"] == 0.25
    assert frozen["mean_percent"] == pytest.approx(20)
    assert frozen["variance_percent"] == pytest.approx(20)


def test_floors_of_the_frame_generator(measured):
    warp = measured.methods["warp"]
    films = [replace(film, psnr_unknown_db=film.psnr_unknown_db + 1.2) for film in warp.films]
    better = replace(warp, films=films)
    good = replace(
        measured,
        methods={"warp": warp, "frame-tiny": better, "frame-tiny, 1 step": better},
        turns={"frame-tiny": [Turned(place="", around_db=23.0, back_db=21.0, variance_over_clip=1.0)]},
    )
    reached = {result.name: result.is_reached for result in frame_floors(good)}
    assert [name for name, is_reached in reached.items() if not is_reached] == [
        "frame-tiny: full turn back to full turn"
    ]
    worse = replace(good, methods={"warp": warp, "frame-tiny": better, "frame-tiny, 1 step": warp}, turns={})
    missed = [result.name for result in frame_floors(worse) if not result.is_reached]
    assert missed == ["frame-tiny less frame-tiny, 1 step: PSNR, unknown pixels"]
    assert frame_floors(replace(good, methods={"warp": warp}, turns={})) == []


def test_features_of_the_benchmark_tell_blur_from_truth(places):
    network = load_features()
    assert WEIGHTS.stat().st_size < 500_000
    sharp = features_of(network, places[0].sample.target_u8)
    assert sharp.shape == (6 * 9, NUM_FEATURES)
    grey = features_of(network, np.full_like(places[0].sample.target_u8, 127))
    assert np.abs(sharp - grey).mean() > 0.05


def test_features_are_trained_the_same_every_time(tmp_path):
    config = FeatureTraining(num_places=4, num_test_places=2, num_steps=2, batch=4, size_px=SIZE_PX)
    for name in ("a.safetensors", "b.safetensors"):
        network, tested = train(config)
        save_features(network, tmp_path / name, config, tested)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    frames_u8 = np.zeros((2, *SIZE_PX, 3), np.uint8)
    assert np.array_equal(
        features_of(load_features(tmp_path / "a.safetensors"), frames_u8), features_of(network, frames_u8)
    )


def test_command_line_prints_one_object(small_tiny, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--random-weights", "--seeds", "900000:900001", "--generators", "warp,last-frame", *SHORT]
    nothing = [f"--{what}" for what in ("revisit-blocks=0", "turn-frames=0", "latency-steps=0", "drift-blocks=0")]
    assert quality.main([*arguments, *nothing, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["benchmark"] == "quality"
    assert {row["place"] for row in printed["places"]["warp"]} == {"900000 synthetic", "900000 photo"}
    assert json.loads((tmp_path / "outputs/quality/quality.json").read_text())["results"] == printed["results"]
    assert (tmp_path / "outputs/quality/psnr.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "7"], "--seeds 7: want START:END"),
        (["--seeds", "9:9"], "want START:END with START < END"),
        (["--generators", "tiny,wrap"], "--generators tiny,wrap: want some of tiny,frame-tiny,teacher,warp,last-frame"),
        (["--turn-frames", "1"], "--turn-frames 1: want 2 or more"),
        (["--drift-blocks", "3"], "--drift-blocks 3: want at least 16"),
        (["--weights", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--teacher-steps", "0"], "--teacher-steps 0: want 1 or more"),
    ],
)
def test_mistakes_take_one_line_and_code_2(capsys, arguments, message):
    assert quality.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_missing_weights_take_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("inspatio_sim.generators.presets.find.SHIPPED", tmp_path)
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)
    assert quality.main(["--seeds", "900000:900001"]) == 2
    error = capsys.readouterr().err
    assert "tiny.safetensors" in error
    assert "random" in error
    assert error.count("\n") == 1


def test_real_clip(test_data, tmp_path):
    (tmp_path / "apple.mp4").symlink_to((test_data / "videos/apple.mp4").resolve())
    clips = measure_clips(tmp_path, {"warp": WarpGenerator(frames_per_block=12)}, load_features(), SIZE_PX)
    values = {result.name: result.value for result in clips.results}
    assert values["apple, warp: PSNR to the warp, known"] == 100
    assert 0.8 < values["apple, warp: mean over the clip's"] < 1.2
    with pytest.raises(InputError, match="no videos"):
        measure_clips(tmp_path / "..", {}, load_features(), SIZE_PX)


def test_ablations_put_students_side_by_side(small_tiny, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("inspatio_sim.generators.presets.find.SHIPPED", tmp_path)
    save_file(TinyAutoencoder(tiny_narrow()).state_dict(), tmp_path / "tiny_codec.safetensors")
    for name in ("full", "other"):
        save_file(StarTransformer(SMALL).state_dict(), tmp_path / f"{name}.safetensors")
    arguments = [f"{name}={tmp_path / name}.safetensors" for name in ("full", "other")]
    arguments += [
        "--seeds",
        "900000:900001",
        "--revisit-blocks",
        "0",
        "--drift-blocks",
        "0",
        "--out",
        str(tmp_path),
        *SHORT,
    ]
    assert ablations.main(arguments) == 0
    assert capfd.readouterr().out.startswith("| | warp | last-frame | full | full, 2 steps |")
    with (tmp_path / "ablations.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert {"warp", "full", "full, 1 step", "other", "other, 1 step"} <= set(rows)
    assert float(rows["warp"]["PSNR, dB"]) > float(rows["full"]["PSNR, dB"]) != float(rows["other"]["PSNR, dB"])


def test_ablations_refuse_what_is_not_there(capsys):
    assert ablations.main(["full=/no/such.safetensors"]) == 2
    assert ablations.main(["full"]) == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "error"]
