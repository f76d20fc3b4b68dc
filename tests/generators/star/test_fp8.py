"""FP8 linear layers: rounding bounds, products against exact ones, and what a whole block loses."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.fp8 import (
    BLOCK_LINEARS,
    Fp8Linear,
    has_fp8,
    quantize_linears,
    quantize_rows,
    relative_error,
)
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler

CONFIG = StarConfig(dim=96, ffn_dim=224, num_heads=4, num_layers=3, text_dim=20, text_len=5, freq_dim=16)


@pytest.fixture
def transformer() -> StarTransformer:
    torch.manual_seed(0)
    return StarTransformer(CONFIG).eval().requires_grad_(False)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e6, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rounding_is_within_a_sixteenth(seed: int, size: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(8, 64, generator=generator).exp()  # small and large ones in a row
    x = (size * spread * torch.randn(8, 64, generator=generator)).to(dtype)
    rounded, scale = quantize_rows(x)
    assert rounded.dtype == torch.float8_e4m3fn
    assert scale.shape == (8, 1)
    error = (rounded.double() * scale.double() - x.double()).abs()
    allowed = torch.maximum(x.double().abs() * 2**-4, scale.double() * 2**-10)
    assert (error <= allowed * (1 + 1e-5)).all()
    assert (rounded.float().abs().amax(dim=1) == 448).all()


def test_rows_of_zeros_and_of_no_number() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-42, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
    rounded, scale = quantize_rows(x)
    back = rounded.float() * scale
    assert torch.equal(back[:2], torch.zeros(2, 2))
    assert back[2:].isnan().any(dim=1).all(), "broken activations must not be hidden"


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_that_of_the_rounded_numbers(dtype: torch.dtype, *, has_bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48, bias=has_bias).to(dtype)
    x = torch.randn(2, 5, 64, dtype=dtype)
    y = Fp8Linear(linear, emulate=True)(x)
    assert y.shape == (2, 5, 48)
    assert y.dtype == dtype
    (rows, row_scale), (weight, scale) = quantize_rows(x.flatten(0, 1)), quantize_rows(linear.weight.detach())
    exact = (rows.double() * row_scale.double()) @ (weight.double() * scale.double()).t()
    if linear.bias is not None:
        exact += linear.bias.detach().bfloat16().double()
    torch.testing.assert_close(y.double().flatten(0, 1), exact, rtol=2**-8, atol=1e-6)
    assert 0.01 < relative_error(y, linear(x)) < 0.06


def test_emulation_is_what_pytorch_multiplies() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(128, 96).bfloat16()
    x = torch.randn(7, 128).bfloat16()
    try:
        y = Fp8Linear(linear)(x)
    except RuntimeError as error:
        pytest.skip(f"this PyTorch has no FP8 products on the CPU: {error}")
    torch.testing.assert_close(y, Fp8Linear(linear, emulate=True)(x), rtol=2**-7, atol=1e-6)


def test_casts_and_copies_leave_it_as_it_is() -> None:
    layer = Fp8Linear(nn.Linear(32, 16), emulate=True)
    x = torch.randn(3, 32)
    before = layer(x)
    nn.Sequential(layer).to(torch.float16).double()
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert layer.scale.dtype == torch.float32
    assert torch.equal(layer(x), before)
    assert torch.equal(copy.deepcopy(layer)(x), before)
    assert layer.to("meta").weight.device.type == "meta"


def test_block_linears_are_replaced_and_nothing_else(transformer: StarTransformer) -> None:
    report = quantize_linears(transformer, emulate=True)
    names = {f"blocks.{i}.{name}" for i in range(CONFIG.num_layers) for name in BLOCK_LINEARS}
    assert {name for name, module in transformer.named_modules() if isinstance(module, Fp8Linear)} == names
    assert set(report.weight_error) == names
    for kept in (transformer.blocks[0].cross_attn.k, transformer.blocks[0].cross_attn.v, transformer.head.head):
        assert type(kept) is nn.Linear
    assert not report.left_alone


def test_report_is_true(transformer: StarTransformer) -> None:
    original = copy.deepcopy(transformer)
    report = quantize_linears(transformer, emulate=True)
    name = "blocks.1.ffn.2"
    before, after = original.get_submodule(name), transformer.get_submodule(name)
    assert isinstance(before, nn.Linear)
    assert isinstance(after, Fp8Linear)
    assert report.weight_error[name] == pytest.approx(relative_error(after.dequantized(), before.weight), rel=1e-4)
    assert all(0.01 < error < 2**-4 for error in report.weight_error.values())
    errors = report.weight_error.values()
    assert min(errors) <= report.overall_weight_error <= max(errors)
    saved = _held(original) - _held(transformer)
    assert report.bytes_saved == saved > 0
    assert str(report).startswith("FP8: 24 linear layers, relative weight error 2.")
    assert "\n" not in str(report)


def test_other_sizes_are_left_alone_and_named() -> None:
    transformer = StarTransformer(replace(CONFIG, ffn_dim=100))
    report = quantize_linears(transformer, emulate=True)
    assert report.left_alone == tuple(f"blocks.{i}.ffn.{j}" for i in range(3) for j in (0, 2))
    assert type(transformer.get_submodule("blocks.0.ffn.0")) is nn.Linear
    assert "6 left alone" in str(report)
    with pytest.raises(InputError, match="100 outputs: FP8 products want multiples of 16"):
        Fp8Linear(nn.Linear(96, 100))


def test_all_layers_left_alone_is_a_report_too() -> None:
    report = quantize_linears(StarTransformer(replace(CONFIG, dim=40, ffn_dim=100)), emulate=True)
    assert report.weight_error == {}
    assert report.bytes_saved == 0
    assert "24 left alone" in str(report)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_device_without_fp8_is_refused(transformer: StarTransformer, device: str | None) -> None:
    with pytest.raises(InputError) as error:
        quantize_linears(transformer, device=device)
    assert "fp8: the device is cpu: want a GPU of compute capability 8.9 or more" in str(error.value)
    assert not any(isinstance(module, Fp8Linear) for module in transformer.modules()), "nothing was replaced"


def test_a_block_loses_little(transformer: StarTransformer) -> None:
    reference = _block(transformer)
    quantize_linears(transformer, emulate=True)
    error = relative_error(_block(transformer), reference)
    assert 1e-4 < error < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not has_fp8(torch.device("cuda")), reason="needs a GPU of compute capability 8.9 or more")
def test_gpu_multiplies_what_is_emulated() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(1536, 8960).bfloat16()
    x = torch.randn(1, 4680, 1536, device="cuda").bfloat16()
    fast, exact = Fp8Linear(linear).cuda(), Fp8Linear(linear, emulate=True).cuda()
    assert relative_error(fast(x), exact(x)) < 0.01


def _held(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def _block(transformer: StarTransformer) -> Tensor:
    """One block from the same noise and conditions, whatever the weights."""
    generator = torch.Generator().manual_seed(1)
    reference, history, condition, *noise = (
        torch.randn(1, 3, channels, 6, 8, generator=generator) for channels in (16, 16, 20, 16, 16, 16, 16)
    )
    text = transformer.text_keys(torch.randn(1, 4, CONFIG.text_dim, generator=generator))
    return BlockSampler(transformer).sample(
        reference=reference, history=history, condition=condition, text=text, noise=lambda step: noise[step]
    )
