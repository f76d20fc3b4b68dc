"""Sizes, and the names and shapes that a file of weights must have."""

from dataclasses import replace

import pytest

from benchmarks.golden import GoldenCase
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.frame_config import FrameConfig, frame_tiny, frame_xl
from inspatio_sim.generators.presets.shapes import expected_shapes
from tests.generators.frame.small import SMALL


def test_names_are_the_published_ones(test_data):
    golden = GoldenCase.load(test_data / "golden" / "worldfm_dit.safetensors")
    prefix = "weights."
    found = {key.removeprefix(prefix): tuple(golden[key].shape) for key, _ in golden.matching(r"weights\..+")}
    assert expected_shapes(FrameConfig(**golden.setting("model"))) == found


def test_presets():
    xl, tiny = frame_xl(), frame_tiny()
    assert (xl.base_size, xl.tokens_of(64, 64), xl.head_dim, xl.out_channels) == (32, 1024, 72, 8)
    assert (tiny.base_size, tiny.tokens_of(12, 20), tiny.head_dim, tiny.out_channels) == (20, 240, 64, 32)
    assert not any("cross_attn" in name or "y_embedder" in name for name in expected_shapes(tiny))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth=0: want a whole number, 1 or more"),
        ({"num_heads": 2.0}, "num_heads=2.0: want a whole number"),
        ({"hidden_size": 50}, "hidden_size=50 over num_heads=2: want a multiple of 4 and of the heads"),
        ({"hidden_size": 48, "num_heads": 5}, "hidden_size=48 over num_heads=5"),
        ({"input_size": 7}, "input_size=7: want a multiple of patch_size=2"),
        ({"mask_channels": 2}, "mask_channels=2: want 0 or 1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0: want a positive number"),
        ({"pe_interpolation": float("nan")}, "pe_interpolation=nan: want a positive number"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("grid", [(5, 6), (4, 7), (0, 4)])
def test_half_tokens_are_refused(grid):
    with pytest.raises(InputError, match=f"latents: {grid[0]}x{grid[1]} came: want multiples of patch_size=2"):
        SMALL.tokens_of(*grid)
