"""Planned memory against what is really held: by counted tensors, by modules, and by a process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inspatio_sim.codecs import taew2_1, tiny_narrow
from inspatio_sim.codecs.memory import TinyCodecMemory, WanCodecMemory
from inspatio_sim.errors import InputError, NotEnoughMemory
from inspatio_sim.generators.blocks.memory import available_bytes
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.presets.shapes import network_of
from inspatio_sim.generators.presets.star_config import StarConfig, star_1_3b, star_14b, star_tiny
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.fp8 import BLOCK_LINEARS, Fp8Linear, quantize_linears
from inspatio_sim.generators.star.memory import (
    SMALLER_PRESETS,
    MemoryRequest,
    check_fits,
    plan_memory,
    setting_for,
)
from inspatio_sim.generators.star.model import StarTransformer, TextKeys
from inspatio_sim.generators.star.sampler import BlockSampler
from tests.peak_bytes import PeakBytes

SMALL = StarConfig(dim=48, ffn_dim=112, num_heads=2, num_layers=3, text_dim=20, text_len=5, freq_dim=16)
DTYPES = [torch.float32, torch.bfloat16]


def request_of(config: StarConfig = SMALL, **changes: Any) -> MemoryRequest:
    sizes: dict[str, Any] = {"height_px": 64, "width_px": 96, "batch": 1, "dtype": torch.float32}
    return MemoryRequest(config=config, **{**sizes, "codec": TinyCodecMemory(tiny_narrow()), **changes})


@pytest.mark.parametrize("is_fp8", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "config",
    [star_tiny(), replace(star_1_3b(), num_layers=3), replace(star_14b(), num_layers=3)],
    ids=["tiny", "1.3b", "14b"],
)
def test_activations_are_those_of_the_context_pass(config: StarConfig, dtype: torch.dtype, is_fp8: bool) -> None:
    height, width, batch = 30, 52, 2
    frame_tokens = height * width // 4
    with torch.device("meta"), torch.inference_mode():
        model = StarTransformer(config).to(dtype)
        if is_fp8:
            for block in model.blocks:
                for name in BLOCK_LINEARS:
                    linear = block.get_submodule(name)
                    assert isinstance(linear, nn.Linear)
                    block.set_submodule(name, Fp8Linear(linear))
        time = model.time_modulation(torch.empty(1))
        text = model.text_keys(torch.empty(batch, 1, config.text_dim))
        table = torch.empty(6 * frame_tokens, 1, config.head_dim)
        cache = STCache(
            config,
            batch=batch,
            max_context_tokens=6 * frame_tokens,
            block_tokens=3 * frame_tokens,
            dtype=dtype,
            device="meta",
        )
        with PeakBytes() as tensors:
            latents = torch.empty(batch, 6, config.out_channels, height, width)
            model.write_context(latents, time, text, (table, table), cache)
    plan = plan_memory(request_of(config, height_px=240, width_px=416, batch=batch, dtype=dtype, fp8=is_fp8))
    assert plan["activations"] == pytest.approx(tensors.peak, rel=0.03)
    assert plan["st_cache"] == cache.nbytes
    assert plan["text_keys"] == sum(t.nbytes for t in [*text.keys, *text.values]) / batch  # of one prompt


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_the_models(dtype: torch.dtype) -> None:
    model = StarTransformer(SMALL).to(dtype)
    assert plan_memory(request_of(dtype=dtype))["weights"] == _held(model)
    quantize_linears(model, emulate=True)
    assert plan_memory(request_of(dtype=dtype, fp8=True))["weights"] == _held(model)


def test_layers_that_fp8_leaves_alone_keep_their_size() -> None:
    config = replace(SMALL, ffn_dim=100)
    model = StarTransformer(config).bfloat16()
    quantize_linears(model, emulate=True)
    assert plan_memory(request_of(config, dtype=torch.bfloat16, fp8=True))["weights"] == _held(model)


def test_weights_come_in_full_before_fp8_makes_them_small() -> None:
    plan = plan_memory(request_of(star_14b(), height_px=16, width_px=16, dtype=torch.bfloat16, fp8=True))
    loading = sum(p.numel() for p in network_of(star_14b()).parameters()) * 2
    assert sum(plan.values()) - plan["total"] < loading == plan["total"]


def _held(model: nn.Module) -> int:
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])


MEASURED = """
import json, re, sys, torch
from pathlib import Path
from inspatio_sim.generators.presets.star_config import star_tiny
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
dtype = getattr(torch, sys.argv[1])
config = star_tiny()
model = StarTransformer(config)
sampler = BlockSampler(model.to(dtype).eval())
text = model.text_keys(torch.zeros(1, 8, 64))

def sample(height, width):
    latents = torch.zeros(1, 3, config.out_channels, height, width)
    condition = torch.zeros(1, 3, config.condition_channels, height, width)
    sampler.sample(reference=latents, history=latents, condition=condition, text=text,
                   noise=lambda step: torch.zeros_like(latents))

sample(2, 2)  # libraries load
Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
before = kilobytes("VmRSS")
sample(30, 52)
print(json.dumps(1024 * (kilobytes("VmHWM") - before)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.7), ("bfloat16", 0.5)])  # oneDNN's own copies in bfloat16
def test_a_process_grows_as_planned(dtype: str, least: float) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED, dtype], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    plan = plan_memory(request_of(star_tiny(), height_px=240, width_px=416, dtype=getattr(torch, dtype)))
    planned = sum(plan[part] for part in ("st_cache", "activations", "modulations"))
    assert least < planned / measured < 1.6, f"planned {planned / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_holds_what_is_planned() -> None:
    config, dtype = replace(star_1_3b(), num_layers=4), torch.bfloat16
    before = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        model = StarTransformer(config).to(dtype).eval()
    torch.cuda.reset_peak_memory_stats()
    latents = torch.zeros(1, 3, 16, 60, 104, device="cuda")
    keys, values = (list(torch.zeros(4, 1, 512, 12, 128, dtype=dtype, device="cuda").unbind()) for _ in range(2))
    BlockSampler(model).sample(
        reference=latents,
        history=latents,
        condition=latents.new_zeros(1, 3, 20, 60, 104),
        text=TextKeys(keys, values),
        noise=lambda step: torch.zeros_like(latents),
    )
    plan = plan_memory(request_of(config, height_px=480, width_px=832, dtype=dtype))
    planned = sum(plan[part] for part in ("weights", "st_cache", "activations", "modulations", "text_keys"))
    assert planned == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.1)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 60),
    batch=st.integers(1, 8),
    dtype=st.sampled_from(DTYPES),
    low_memory=st.booleans(),
    fp8=st.booleans(),
    codec=st.sampled_from([TinyCodecMemory(taew2_1()), TinyCodecMemory(tiny_narrow()), WanCodecMemory()]),
)
def test_more_of_anything_needs_more(rows: int, columns: int, batch: int, **options: Any) -> None:
    request = request_of(star_1_3b(), height_px=16 * rows, width_px=16 * columns, batch=batch, **options)
    plan = plan_memory(request)
    needed = _together(plan)

    def needs(**changes: Any) -> int:
        return _together(plan_memory(replace(request, **changes)))

    assert needs(batch=batch + 1) > needed
    assert needs(height_px=16 * rows + 16) > needed
    assert needs(width_px=16 * columns + 16) > needed
    assert needs(config=star_14b()) > needed > needs(config=star_tiny())
    assert needs(low_memory=False) >= needed >= needs(low_memory=True)
    assert needs(dtype=torch.float32) >= needed >= needs(dtype=torch.bfloat16)
    small, full = (plan_memory(replace(request, fp8=fp8)) for fp8 in (True, False))
    assert small["weights"] < full["weights"]
    assert plan["total"] == max(needed, full["weights"])
    assert min(size for name, size in plan.items() if name != "codec_state") > 0  # the narrow one has none


def _together(plan: dict[str, int]) -> int:
    return sum(plan.values()) - plan["total"]


def test_published_model_fits_its_gpus() -> None:
    request = request_of(
        star_1_3b(), height_px=480, width_px=832, dtype=torch.bfloat16, codec=TinyCodecMemory(taew2_1())
    )
    assert plan_memory(request)["total"] < 16e9
    assert plan_memory(replace(request, low_memory=True))["total"] < 8e9


BIG = request_of(star_14b(), height_px=480, width_px=832, batch=4, codec=TinyCodecMemory(taew2_1()))


@pytest.mark.parametrize(
    ("start", "target", "wanted"),
    [
        ({}, {"dtype": torch.bfloat16}, "dtype=bfloat16"),
        ({"dtype": torch.bfloat16}, {"low_memory": True}, "low_memory=True"),
        ({}, {"dtype": torch.bfloat16, "low_memory": True}, "dtype=bfloat16, low_memory=True"),
        ({"dtype": torch.bfloat16, "low_memory": True}, {"fp8": True}, "fp8=True"),
        ({"dtype": torch.bfloat16, "low_memory": True, "fp8": True}, {"batch": 2}, "batch=2"),
        (
            {"dtype": torch.bfloat16, "low_memory": True, "fp8": True, "batch": 1, "height_px": 960, "width_px": 1664},
            {"height_px": 480, "width_px": 832},
            "frames of 480x832 px",
        ),
        (
            {"dtype": torch.bfloat16, "low_memory": True, "fp8": True, "batch": 1},
            {"config": star_1_3b()},
            "preset=inspatio-1.3b",
        ),
        ({}, {"config": star_tiny(), "dtype": torch.bfloat16, "low_memory": True, "fp8": True, "batch": 1}, None),
    ],
)
def test_the_first_setting_that_fits_is_named(start: dict, target: dict, wanted: str | None) -> None:
    request = replace(BIG, **start)
    free = plan_memory(replace(request, **target))["total"]
    wanted = wanted or "dtype=bfloat16, low_memory=True, fp8=True, batch=1, preset=tiny"
    assert setting_for(request, free, can_fp8=True) == wanted


def test_fp8_is_not_suggested_where_there_is_none() -> None:
    request = replace(BIG, dtype=torch.bfloat16, low_memory=True)
    free = plan_memory(replace(request, fp8=True))["total"]
    setting = setting_for(request, free, can_fp8=False)
    assert setting is not None
    assert "fp8" not in setting


def test_nothing_fits_into_nothing() -> None:
    assert setting_for(BIG, 0, can_fp8=True) is None


def test_suggested_presets_are_the_registrys() -> None:
    for name, config in SMALLER_PRESETS:
        assert star_preset(name).star == config


def test_too_much_is_refused_in_one_line() -> None:
    request = replace(BIG, batch=10_000)
    with pytest.raises(NotEnoughMemory) as error:
        check_fits(request, torch.device("cpu"))
    message = str(error.value)
    assert "\n" not in message
    assert "10000 worlds of 480x832 px in float32 on cpu: need " in message
    assert " GB are free: use " in message
    assert "fp8" not in message
    plan = check_fits(request_of(height_px=16, width_px=16), torch.device("cpu"))
    assert 0 < plan["total"] < available_bytes(torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height_px": 470}, "height_px=470: want a multiple of 16"),
        ({"width_px": 0}, "width_px=0: want a multiple of 16"),
        ({"batch": 0}, "batch=0: want 1 or more"),
    ],
)
def test_impossible_requests_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        request_of(**changes)
    assert message in str(error.value)
