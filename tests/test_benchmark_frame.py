import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import frame
from benchmarks.frame_cases.cpu import CpuRun, measure_cpu
from benchmarks.frame_cases.cuda import CudaRun, measure_cuda
from benchmarks.frame_cases.soak import Size, Soaked, SoakRun, soak
from benchmarks.frame_cases.variants import pass_flop
from benchmarks.frame_cases.walk import motion_at, pose_at, walkers
from benchmarks.star_cases.machine import empty_cache_folder
from benchmarks.star_cases.steps import film
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets.frame_config import frame_tiny, frame_xl
from inspatio_sim.generators.warp import WarpGenerator

SIZE_PX = (32, 48)
LOADING = {"random_weights": True, "dtype": "float32"}


@pytest.fixture(scope="module")
def cpu_results():
    run = CpuRun(size_px=SIZE_PX, num_steps=4, batch=2, options=LOADING, matmul_shapes=((64, 64, 64),))
    with empty_cache_folder():
        return {result.name: result for result in measure_cpu(run)}


@pytest.fixture(scope="module")
def soaked():
    run = SoakRun(num_steps=60, size_px=SIZE_PX, max_views=4, options=LOADING)
    with empty_cache_folder():
        return soak(run)


def test_walk_is_smooth_and_looks_everywhere():
    motions = [motion_at(i) for i in range(400)]
    assert max(motion.distance_m for motion in motions) < 0.04
    assert max(motion.angle_rad for motion in motions) < math.radians(3)
    poses = np.stack([pose_at(i) for i in range(400)])
    assert np.array_equal(poses[0], np.eye(4))
    assert np.abs(poses[:, :3, 3]).max() <= 0.6
    forward = poses[:, :3, 2]
    assert forward[:, [0, 2]].max(0).min() > 0.95
    assert forward[:, [0, 2]].min(0).max() < -0.95


def test_world_goes_where_the_walk_says():
    reference = film(SIZE_PX, 5)
    (world,) = walkers(WarpGenerator(), reference, 1)
    for i in range(20):
        observation = world.step(motion_at(i))
        assert np.allclose(observation.T_world_camera[-1], reference.T_world_camera[0] @ pose_at(i + 1), atol=1e-9)


def test_every_result_of_the_cpu_is_a_number_and_named_once(cpu_results):
    assert len(cpu_results) > 60
    assert all(math.isfinite(result.value) and result.value >= 0 for result in cpu_results.values())
    assert {name: result.floor for name, result in cpu_results.items() if not result.is_reported} == {
        "frame-tiny, 2 steps: whole steps": 24,
        "frame-tiny, 2 steps: action to frame, p95": 60,
        "frame-tiny, 1 step: whole steps": 36,
        "frame-tiny, 1 step: action to frame, p95": 60,
    }
    flop = pass_flop(frame_tiny(), (4, 6))
    assert cpu_results["frame-tiny, 1 step: operations of a pass"].value == flop / 1e9
    assert cpu_results["frame-tiny, 2 steps, 2 worlds: views remembered"].value >= 1


def test_operations_are_those_that_are_run():
    config = replace(frame_tiny(), depth=3)
    x, beside = (torch.randn(1, channels, 4, 6) for channels in (32, 33))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the others are not counted on CPUs
        FrameTransformer(config)(x, torch.tensor([999]), beside, beside)
    assert pass_flop(config, (4, 6)) == counter.get_total_flops() > 0


def test_operations_of_the_presets():
    assert 7e9 < pass_flop(frame_tiny(), (12, 20)) < 8e9
    assert 3e12 < pass_flop(frame_xl(), (64, 64)) < 4e12


def test_stages_make_up_a_step(cpu_results):
    def stage(name, what="frame-tiny, 2 steps"):
        return cpu_results[f"{what}: {name}"].value

    generated = sum(stage(name) for name in ("select", "encode", "denoise", "decode"))
    parts = generated + sum(stage(name) for name in ("plan", "condition", "observe", "map"))
    assert 0.4 * stage("total") < parts < 2 * stage("total")  # medians of four steps
    assert stage("frames") == pytest.approx(1 / stage("total"))
    together = "frame-tiny, 2 steps, 2 worlds"
    assert stage("frames", together) == pytest.approx(2 / stage("total", together))
    assert stage("action to frame, p95") == pytest.approx(1e3 * stage("action to pixels, p95"))
    flop = 2 * pass_flop(frame_tiny(), (4, 6))
    assert stage("denoise, rate") == pytest.approx(flop / stage("denoise") / 1e9)
    assert stage("denoise, rate", together) == pytest.approx(2 * flop / stage("denoise", together) / 1e9)


def test_soak_fills_the_memory_and_no_more(soaked):
    assert soaked.early.num_views <= soaked.late.num_views == 4
    assert soaked.late.memory_bytes < 4 * (32 * 4 * 6 + 32 * 48 + 3 * 16) * 8
    assert soaked.late.num_points > soaked.early.num_points > 0
    assert soaked.late.resident_bytes > 1e8
    assert soaked.early_s > 0
    assert soaked.late_s > 0


def test_floors_of_a_soak():
    early = Size(resident_bytes=1_000, map_bytes=100, num_points=10, memory_bytes=50, num_views=30)
    flat = Soaked(num_steps=100, max_views=32, early_s=0.04, late_s=0.043, early=early, late=early)
    assert all(result.is_reached for result in flat.rows())
    assert len({result.name for result in flat.rows()}) == 14
    grown = replace(early, resident_bytes=1_060, num_views=33)
    missed = [result.name for result in replace(flat, late=grown, late_s=0.05).rows() if not result.is_reached]
    assert missed == [
        "100 steps: last tenth over second, time of a step",
        "100 steps: memory of the process, second tenth to last",
        "100 steps: views remembered",
    ]


def gpu_run(**options):
    """The code for a GPU, on the CPU."""
    run = CudaRun(
        preset="frame-tiny",
        options={"random_weights": True},
        dtype="float32",
        size_px=SIZE_PX,
        num_steps=2,
        only=("eager",),
        device="cpu",
        matmul_shapes=((64, 64, 64),),
    )
    with empty_cache_folder():
        return measure_cuda(replace(run, **options))


def test_setting_on_a_gpu():
    results, notes = gpu_run()
    assert notes == []
    values = {result.name: result.value for result in results}
    assert values["frame-tiny, float32 eager: frames"] > 0
    assert values["frame-tiny, float32 eager: peak memory"] > 0.01
    assert values["frame-tiny, float32 eager: graphs compiled after that"] == 0
    assert all(result.is_reported for result in results)


def test_setting_that_fails_is_a_note():
    results, notes = gpu_run(dtype="float16", batch=2)
    assert [result.name for result in results] == ["matrix products of this GPU, bfloat16"]
    assert [note.partition(": want")[0] for note in notes] == [
        "frame-tiny, float16 eager, 2 worlds: not measured: dtype='float16'"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--soak", "19"], "--soak 19: want at least 20 steps"),
        (["--preset", "worldfm-2step"], "--preset: goes with --device cuda"),
        (["--only", "eager"], "--only: goes with --device cuda"),
        (["--device", "cuda", "--soak"], "--soak: goes with --device cpu"),
        (["--size", "96"], "--size 96: want HEIGHTxWIDTH"),
        (["--weights", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--random-weights", "--size", "30x48"], "frames of 30x48 px: want multiples of 8"),
    ],
)
def test_mistakes_take_one_line_and_code_2(capsys, arguments, message):
    num_threads = torch.get_num_threads()
    assert frame.main(arguments) == 2
    torch.set_num_threads(num_threads)
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(capsys):
    assert frame.main(["--device", "cuda", "--random-weights", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: --device cuda: this machine has no CUDA device")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("what", [["--steps", "1"], ["--soak", "20"]])
def test_command_line_prints_one_object(capfd, what):
    num_threads = torch.get_num_threads()
    assert frame.main(["--random-weights", "--size", "32x48", *what, "--json"]) == 0
    torch.set_num_threads(num_threads)
    printed = json.loads(capfd.readouterr().out)
    assert printed["benchmark"] == "frame"
    assert printed["torch"] == torch.__version__
    assert printed["threads"] == min(2, os.cpu_count() or 1)
    assert set(printed["results"][0]) == {"name", "value", "unit", "floor", "better"}
