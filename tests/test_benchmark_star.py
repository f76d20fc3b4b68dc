import json
import math
import os
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import star
from benchmarks.star_cases.blocks import BlockInputs, block_flop, block_maker
from benchmarks.star_cases.cpu import CpuCase, measure_cpu
from benchmarks.star_cases.cuda import NAMES, CudaRun, floors, measure_cuda, variants_of
from benchmarks.star_cases.machine import empty_cache_folder
from benchmarks.star_cases.steps import Steps
from benchmarks.star_cases.variants import Measured
from inspatio_sim.condition.observation import StepTiming
from inspatio_sim.generators.presets.star_config import StarConfig, star_1_3b
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, SamplerConfig

SMALL = StarConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, text_dim=8, text_len=4)


@pytest.fixture(scope="module")
def cpu_results():
    case = CpuCase(
        star=SMALL,
        size_px=(32, 48),
        repeats=1,
        num_steps=2,
        matmul_shapes=((64, 64, 64),),
        endless_star=SMALL,
        endless_size_px=(32, 48),
        num_blocks=30,
    )
    with empty_cache_folder():
        return {result.name: result for result in measure_cpu(case)}


@pytest.fixture(scope="module")
def gpu_run():
    """The code for a GPU, on the CPU, with one variant that works there and one that does not."""
    run = CudaRun(
        preset="tiny",
        random_weights=True,
        dtype="float32",
        size_px=(32, 48),
        num_steps=2,
        only=("eager", "graphs"),
        device="cpu",
        matmul_shapes=((64, 64, 64),),
    )
    with empty_cache_folder():
        return measure_cuda(run)


def test_every_result_of_the_cpu_is_a_number_and_named_once(cpu_results):
    assert len(cpu_results) > 40
    assert all(math.isfinite(result.value) and result.value >= 0 for result in cpu_results.values() if result.floor)
    floors = {name: result.floor for name, result in cpu_results.items() if not result.is_reported}
    assert floors == {
        "block, float32": 0.30,
        "block, bfloat16": 0.15,
        "CpuTransformer against StarTransformer, float32, largest difference": 1e-5,
        "batch of 3 against one by one, float32, largest difference": 1e-5,
        "World.step, 12 frames: overhead around the model": 20,
        "30 blocks: last tenth over first, time": 1.1,
        "30 blocks: memory, block 3 to last": 1,
        "30 blocks: block 3 made again after the last, largest difference": 0,
    }


def test_what_does_not_depend_on_the_machine(cpu_results):
    exact = [result for name, result in cpu_results.items() if name.endswith("largest difference")]
    assert len(exact) == 3
    assert all(result.is_reached for result in exact)
    assert cpu_results["operations of a block"].value == block_flop(SMALL, (32, 48), SamplerConfig()) / 1e9
    assert 0 < cpu_results["FP8 (emulated) against float32, relative rms"].value < 0.2


@pytest.mark.parametrize("batch", [1, 2])
def test_operations_are_those_that_are_run(batch):
    sampling = SamplerConfig(steps=(1000, 500))
    config = replace(SMALL, num_layers=3)
    inputs = BlockInputs.random(config, (48, 64), batch=batch, num_steps=2, block_latents=1)
    make = block_maker(BlockSampler(StarTransformer(config), sampling), inputs)
    make()  # what is made once is made now
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the others are not counted on CPUs
        make()
    counted = block_flop(config, (48, 64), sampling, batch=batch, block_latents=1)
    assert counted == counter.get_total_flops() > 0


@pytest.mark.slow
def test_operations_of_the_published_model():
    assert block_flop(star_1_3b(), (480, 832), SamplerConfig()) == pytest.approx(137e12, rel=0.02)


def test_stages_make_up_a_step(cpu_results):
    def stage(name):
        return cpu_results[f"World.step, 12 frames: {name}"].value

    parts = sum(stage(name) for name in ("plan", "condition", "encode", "denoise", "decode", "observe", "map"))
    assert 0.5 * stage("total") < parts < 1.5 * stage("total")  # medians of two steps
    assert stage("frames") == pytest.approx(12 / stage("total"))
    assert stage("action to pixels, p50") < stage("total") + stage("map")


def test_variant_that_fails_is_a_note_and_the_others_go_on(gpu_run):
    results, notes = gpu_run
    assert [note.partition(": want")[0] for note in notes] == [
        "float32 compiled, CUDA graphs: not measured: cuda_graphs: the device is cpu"
    ]
    values = {result.name: result.value for result in results}
    assert values["World.step, best of 1 variants (float32 eager)"] == values["float32 eager: frames"] > 0
    assert values["graphs compiled after warm-up, all variants"] == 0
    assert values["float32 eager: peak memory"] > 0.01
    assert not any("FP8" in name for name in values)


def test_every_name_is_a_variant():
    assert tuple(variants_of(CudaRun(preset="tiny", random_weights=True))) == NAMES


def steps_of(total_s, generate_s):
    timing = StepTiming(
        plan_s=0.0,
        condition_s=0.0,
        generate_s=generate_s,
        observe_s=0.0,
        map_s=total_s - generate_s,
        generator={"encode": 0.0, "denoise": generate_s, "decode": 0.0},
    )
    return Steps([timing], 12)


def test_floors_are_those_of_the_fastest_variant():
    variants = variants_of(CudaRun(preset="tiny", random_weights=True))

    def measured(key, total_s, peak_bytes=1_000_000_000):
        return Measured(
            variant=variants[key],
            load_s=1,
            warm_up_s=1,
            num_graphs=6,
            num_graphs_later=1,
            steps=steps_of(total_s, 0.2),
            reversed_steps=steps_of(total_s, 0.2),
            peak_bytes=peak_bytes,
            denoise_flop=4_000_000_000_000,
            num_threads=1,
        )

    slow, fast, small = measured("eager", 1.0), measured("fp8", 0.25), measured("low-memory", 0.1, 9_000_000_000)
    results = {result.unit or "graphs": result for result in floors({"eager": slow, "fp8": fast, "low-memory": small})}
    assert results["frames/s"].value == 48
    assert results["frames/s"].is_reached
    assert "FP8 compiled" in results["frames/s"].name
    assert results["%"].value == pytest.approx(20)
    assert not results["%"].is_reached
    assert results["graphs"].value == 2
    assert not results["graphs"].is_reached
    assert results["GB"].value == 9
    assert not results["GB"].is_reached
    assert fast.flop_per_s == 20_000_000_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "96x160"], "--size: goes with --preset"),
        (["--only", "eager"], "--only: goes with --device cuda"),
        (["--preset", "nope"], "preset 'nope': want one of"),
        (["--preset", "tiny", "--random-weights", "--size", "96"], "--size 96: want HEIGHTxWIDTH"),
    ],
)
def test_mistakes_take_one_line_and_code_2(capsys, arguments, message):
    assert star.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(capsys):
    assert star.main(["--device", "cuda", "--preset", "inspatio-1.3b", "--random-weights", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: --device cuda: this machine has no CUDA device")
    assert captured.err.count("\n") == 1


def test_command_line_prints_one_object(capfd):
    num_threads = torch.get_num_threads()
    arguments = ["--preset", "tiny", "--random-weights", "--size", "32x48", "--blocks", "1", "--json"]
    assert star.main(arguments) == 0
    torch.set_num_threads(num_threads)
    printed = json.loads(capfd.readouterr().out)
    assert printed["benchmark"] == "star"
    assert printed["torch"] == torch.__version__
    assert printed["threads"] == os.cpu_count()
    assert set(printed["results"][0]) == {"name", "value", "unit", "floor", "better"}
