"""Linear layers in 8-bit floating point (e4m3: 3 bits of mantissa, at most 448), for GPUs that multiply it.

y = (s_x x_8) (s_w w_8)' + b: every row of the weights has its own scale s_w, made once; every token has its own
s_x, made as it comes. A rounded weight is off by at most 1/16 of itself, or by s_w / 1024 where it is tiny.
Only the products that run on every token of a block are replaced: the others cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.generators.star.model import StarTransformer

E4M3 = torch.float8_e4m3fn
E4M3_MAX = torch.finfo(E4M3).max  # 448
MIN_SCALE = torch.finfo(torch.float32).tiny  # of a row of zeros
CAPABILITY = (8, 9)  # Ada; Hopper and later have more
MULTIPLE = 16  # of which both sizes of a matrix must be

BLOCK_LINEARS = (
    "self_attn.q",
    "self_attn.k",
    "self_attn.v",
    "self_attn.o",
    "cross_attn.q",
    "cross_attn.o",
    "ffn.0",
    "ffn.2",
)
"""The linear layers of a block that run on every token, by their names within it."""


class Fp8Linear(nn.Module):
    """A linear layer with 8-bit weights and activations; sums in float32 or nearly so, answers in the input's dtype.

    With `emulate` the rounded numbers are multiplied in float32, on any device: slow, but the same rounding of
    weights, activations and result; only sums differ, in their last bits. Not trainable. A cast with `.to(dtype)`
    leaves it as it is.

    Shapes: R rows (tokens), I inputs, O outputs.
    """

    weight: Tensor  # e4m3. [O, I]
    scale: Tensor  # of each row of the weights, float32. [1, O]
    bias: Tensor | None  # bfloat16. [O]

    def __init__(self, linear: nn.Linear, *, emulate: bool = False) -> None:
        super().__init__()
        if linear.in_features % MULTIPLE or linear.out_features % MULTIPLE:
            raise InputError(
                f"linear layer of {linear.in_features} inputs and {linear.out_features} outputs: "
                f"FP8 products want multiples of {MULTIPLE}"
            )
        self.in_features, self.out_features, self.emulate = linear.in_features, linear.out_features, emulate
        weight, scale = quantize_rows(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        rows, row_scale = quantize_rows(x.flatten(0, -2))
        if self.emulate:
            y = F.linear(rows.float() * row_scale, self.dequantized())
            y = (y if self.bias is None else y + self.bias).bfloat16()
        else:
            y = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
                rows,
                self.weight.t(),
                scale_a=row_scale,
                scale_b=self.scale,
                bias=self.bias,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        return y.to(x.dtype).unflatten(0, x.shape[:-1])

    def dequantized(self) -> Tensor:
        """The weights as they are after rounding. float32. [O, I]"""
        return self.weight.float() * self.scale.t()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fp8Linear:
        """Follow a move to another device, not a cast: 8 bits mean nothing without their float32 scales."""
        device = fn(self.scale[:, :1]).device
        for name, buffer in self.named_buffers(recurse=False):
            setattr(self, name, buffer.to(device))
        return self

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, emulate={self.emulate}"


@dataclass(frozen=True, kw_only=True)
class Fp8Report:
    """What quantising did to a transformer."""

    weight_error: dict[str, float]  # by layer: norm of the change, over the norm of the weights
    overall_weight_error: float  # of all replaced weights together
    bytes_before: int  # of the replaced layers
    bytes_after: int
    left_alone: tuple[str, ...]  # layers whose sizes are no multiples of 16

    @property
    def bytes_saved(self) -> int:
        return self.bytes_before - self.bytes_after

    def __str__(self) -> str:
        """One line for people."""
        worst = max(self.weight_error, key=lambda name: self.weight_error[name], default=None)
        parts = [
            f"FP8: {len(self.weight_error)} linear layers",
            f"relative weight error {self.overall_weight_error:.2%}",
            f"saves {self.bytes_saved / 1e9:.2f} GB",
        ]
        if worst is not None:
            parts.insert(2, f"worst {worst} {self.weight_error[worst]:.2%}")
        if self.left_alone:
            parts.append(f"{len(self.left_alone)} left alone: sizes are no multiples of {MULTIPLE}")
        return ", ".join(parts)


def quantize_linears(
    transformer: StarTransformer, *, device: torch.device | str | None = None, emulate: bool = False
) -> Fp8Report:
    """Replace the linear layers of every block (`BLOCK_LINEARS`) in place.

    The weights stay where they are: to keep the GPU from ever holding the larger ones, quantise on the CPU with
    `device` set, then move the transformer.

    Args:
        transformer: with trained weights, in any floating dtype.
        device: where it will run; None: where it is.
        emulate: see `Fp8Linear`; for tests, and to measure the loss without such a GPU.

    Raises:
        InputError: the device has no FP8 products.
    """
    if not emulate:
        check_fp8(torch.device(device) if device is not None else transformer.device)
    errors: dict[str, float] = {}
    left_alone: list[str] = []
    change, total, bytes_before, bytes_after = 0.0, 0.0, 0, 0
    for i, block in enumerate(transformer.blocks):
        for name in BLOCK_LINEARS:
            linear, full_name = block.get_submodule(name), f"blocks.{i}.{name}"
            assert isinstance(linear, nn.Linear), f"{full_name} is {type(linear).__name__}: quantised or fused before?"
            if linear.in_features % MULTIPLE or linear.out_features % MULTIPLE:
                left_alone.append(full_name)
                continue
            quantized = Fp8Linear(linear, emulate=emulate)
            weight = linear.weight.detach().float()
            layer_change = (quantized.dequantized() - weight).square().sum().item()
            layer_total = weight.square().sum().item()
            errors[full_name] = (layer_change / layer_total) ** 0.5 if layer_total else 0.0
            change, total = change + layer_change, total + layer_total
            bytes_before += sum(tensor.nbytes for tensor in linear.parameters())
            bytes_after += sum(tensor.nbytes for tensor in quantized.buffers())
            block.set_submodule(name, quantized)
    return Fp8Report(
        weight_error=errors,
        overall_weight_error=(change / total) ** 0.5 if total else 0.0,
        bytes_before=bytes_before,
        bytes_after=bytes_after,
        left_alone=tuple(left_alone),
    )


def has_fp8(device: torch.device) -> bool:
    """Whether FP8 products run there."""
    if not hasattr(torch, "_scaled_mm"):  # not public
        return False
    return (
        device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def check_fp8(device: torch.device) -> None:
    """Refuse a device on which FP8 products do not run.

    Raises:
        InputError: says what it is, and what would do.
    """
    if has_fp8(device):
        return
    found = str(device)
    if device.type == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(device)
        found = f"{device}, a {torch.cuda.get_device_name(device)} of capability {major}.{minor}"
    raise InputError(
        f"fp8: the device is {found}: want a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or more "
        "(Ada, Hopper, Blackwell), or leave fp8 off"
    )


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every row over its largest magnitude, rounded to e4m3. [R, I] -> e4m3 [R, I], float32 scale [R, 1]"""
    largest = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True, dtype=torch.float32)  # without a copy
    scale = (largest / E4M3_MAX).clamp_min(MIN_SCALE)
    return (x / scale).to(E4M3), scale


def relative_error(outputs: Tensor, reference: Tensor) -> float:
    """Norm of the difference over that of the reference: of a block's latents in FP8 and in full, say."""
    reference = reference.float()
    return ((outputs.float() - reference).norm() / reference.norm()).item()
