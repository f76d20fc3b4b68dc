"""The network of TAEHV, a tiny video autoencoder: frames in [0, 1] to Wan latents and back, 4 frames a latent.

Every convolution looks at one frame; time enters only where a memory block sees the frame before, and where frames
are joined or split. Architecture and parameter names: madebyollin/taehv (MIT), weights `taew2_1`.

Letters of shapes: B streams, T frames (or what is left of them), H W their size, C channels. Activations are
[B, T, H, W, C]: the layout in which convolutions are fastest on processors, and on tensor cores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspatio_sim.errors import InputError
from inspatio_sim.latents import SPATIAL_STRIDE, TEMPORAL_STRIDE

TimeAlignment = Literal["look-ahead", "causal"]

Memory = dict[str, Tensor]
"""The last input of every memory block, by the block's name. [B, H, W, C]"""

MemoryShapes = dict[str, tuple[int, int, int, int]]

PIXELS_PER_LATENT = TEMPORAL_STRIDE * SPATIAL_STRIDE**2 * 3  # numbers: frames, height, width, colours
MEMORY_BLOCKS = 3  # of a stage

# PyTorch convolves a single picture with no more numbers than this by another algorithm, which rounds otherwise: on
# the CPU such a one is doubled, so that frames come out the same bits whether alone or among others.
_SMALL_PICTURE = 20480

_POOLED = (2, 2, 1)  # frames joined by each stage of the encoder
GROWN = (1, 2, 2)  # frames made of one by each stage of the decoder


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Widths of the network, and how it lays frames on latents."""

    encoder_width: int = 64  # 0: the linear path alone encodes
    decoder_widths: tuple[int, ...] = (256, 128, 64, 64)
    """Of the decoder's three stages, and of what follows; none: the linear path alone decodes."""
    latent_channels: int = 16
    time_alignment: TimeAlignment = "look-ahead"
    """Frames of latent k: 4k .. 4k+3 (look-ahead, as published) or 4k-3 .. 4k (causal, as the Wan autoencoder)."""
    linear_path: bool = False
    """Beside the network, linear maps: pixels to the latent above them, and a latent with its eight neighbours to the
    pixels below. Not in the published network."""

    def __post_init__(self) -> None:
        if len(self.decoder_widths) != 4 and not (self.linear_path and not self.decoder_widths):
            or_none = "or none, " if self.linear_path else ""
            raise InputError(f"decoder_widths={self.decoder_widths}: want four, {or_none}such as (256, 128, 64, 64)")
        least = 0 if self.linear_path else 1
        if not isinstance(self.encoder_width, int) or self.encoder_width < least:
            wanted = f"a whole number from {least}" + ("" if self.linear_path else ", or linear_path=True for 0")
            raise InputError(f"encoder_width: {self.encoder_width!r} came: want {wanted}")
        for name, value in (
            ("latent_channels", self.latent_channels),
            *(("decoder_widths", width) for width in self.decoder_widths),
        ):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: {value!r} came: want whole numbers from 1")
        if self.time_alignment not in get_args(TimeAlignment):
            wanted = ", ".join(get_args(TimeAlignment))
            raise InputError(f"time_alignment={self.time_alignment!r}: want one of {wanted}")


def taew2_1() -> TinyConfig:
    """The published network for Wan 2.1 latents: 11.3 million parameters."""
    return TinyConfig()


def tiny_narrow() -> TinyConfig:
    """For processors and small frames: linear, no look-ahead, twice the published latent channels.

    A linear encoder sees each latent's own pixels alone: a hole in a render spoils no latent beside it.
    """
    return TinyConfig(encoder_width=0, decoder_widths=(), latent_channels=32, time_alignment="causal", linear_path=True)


class FrameConv(nn.Conv2d):
    """A convolution of every frame by itself. [B, T, H, W, C]"""

    def forward(self, input: Tensor) -> Tensor:
        return _frame_by_frame(super().forward, input)


class FrameLinear(nn.Linear):
    """A linear map of every pixel: run as a convolution, so that a frame alone comes out as among others."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight[:, :, None, None]
        return _frame_by_frame(lambda x_NCHW: F.conv2d(x_NCHW, weight, self.bias), input)


def _frame_by_frame(convolve: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    frames = input.flatten(0, 1).contiguous()
    if frames.device.type == "cpu" and len(frames) == 1 and frames.numel() <= _SMALL_PICTURE:
        frames = frames.repeat(2, 1, 1, 1)
    y_NCHW = convolve(frames.permute(0, 3, 1, 2))
    return y_NCHW.permute(0, 2, 3, 1)[: input.shape[0] * input.shape[1]].unflatten(0, input.shape[:2])


class MemoryBlock(nn.Module):
    """A residual block that sees each frame beside the frame before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv3(2 * width, width), _relu(), _conv3(width, width), _relu(), _conv3(width, width)
        )

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Run on frames x [B, T, H, W, C] that follow `previous` [B, H, W, C]."""
        past = torch.cat([previous.unsqueeze(1), x[:, :-1]], dim=1)
        return torch.relu_(self.conv(torch.cat([x, past], dim=-1)) + x)


class PoolTime(nn.Module):
    """Joins each `stride` frames to one, by a learned sum."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = FrameConv(stride * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unflatten(1, (-1, self.stride)).movedim(2, -2).flatten(-2))


class GrowTime(nn.Module):
    """Makes `stride` frames of each."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = FrameConv(width, stride * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(-1, (self.stride, -1)).movedim(-2, 2).flatten(1, 2)


class Upsample(nn.Module):
    """Every pixel twice, in height and width."""

    def forward(self, x: Tensor) -> Tensor:
        y_NCHW = F.interpolate(x.flatten(0, 1).contiguous().permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest")
        return y_NCHW.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class SoftClamp(nn.Module):
    """Latents pressed into (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class TinyAutoencoder(nn.Module):
    """Both halves. Chunks follow one another through the memory that each call takes and gives."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(_encoder_layers(config))
        self.decoder = nn.Sequential(_decoder_layers(config))
        if config.linear_path:
            self.linear_encoder = FrameLinear(PIXELS_PER_LATENT, config.latent_channels)
            self.linear_decoder = FrameConv(
                config.latent_channels, PIXELS_PER_LATENT, 3, padding=1, padding_mode="replicate"
            )

    def encode(self, frames: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Encode 4n frames in [0, 1] to n latents.

        Args:
            frames: [B, 4n, H, W, 3]
            memory: after the frames before; None: these are the first.

        Returns:
            Latents [B, n, H/8, W/8, latent_channels], and the memory after them.
        """
        batch, _, height_px, width_px, _ = frames.shape
        shapes = self.encoder_memory_shapes(batch, height_px, width_px)
        latents, after = None, {}
        if self.encoder:
            latents, after = _run(self.encoder, frames, memory or self.no_memory(shapes))
        if self.config.linear_path:
            linear = self.linear_encoder(pixels_of_latents(frames))
            latents = linear if latents is None else latents + linear
        assert latents is not None, "neither an encoder nor a linear path"
        return latents, after

    def decode(self, latents: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Decode n latents to 4n frames, in [0, 1] but for small excesses.

        Args:
            latents: [B, n, h, w, latent_channels]
            memory: after the latents before; None: these are the first.

        Returns:
            Frames [B, 4n, 8h, 8w, 3], and the memory after them. A stream's first three frames are to be dropped.
        """
        batch, _, height, width, _ = latents.shape
        shapes = self.decoder_memory_shapes(batch, height, width)
        frames, after = None, {}
        if self.decoder:
            frames, after = _run(self.decoder, latents, memory or self.no_memory(shapes))
        if self.config.linear_path:
            linear = frames_of_pixels(self.linear_decoder(latents))
            frames = linear if frames is None else frames + linear
        assert frames is not None, "neither a decoder nor a linear path"
        return frames, after

    def encoder_memory_shapes(self, batch: int, height_px: int, width_px: int) -> MemoryShapes:
        """What the encoder's memory looks like, for pictures of this size."""
        width = self.config.encoder_width
        stages = [(batch, height_px >> i, width_px >> i, width) for i in (1, 2, 3)]
        return _memory_shapes(self.encoder, stages)

    def decoder_memory_shapes(self, batch: int, height: int, width: int) -> MemoryShapes:
        """What the decoder's memory looks like, for latents of this size."""
        widths = self.config.decoder_widths
        stages = [(batch, height << i, width << i, channels) for i, channels in enumerate(widths[:-1])]
        return _memory_shapes(self.decoder, stages)

    def no_memory(self, shapes: MemoryShapes) -> Memory:
        """The memory of streams that begin: zeros."""
        like = next(self.parameters())
        return {name: like.new_zeros(shape) for name, shape in shapes.items()}


def pixels_of_latents(frames: Tensor) -> Tensor:
    """The numbers that lie under each latent. [B, 4n, 8h, 8w, 3] -> [B, n, h, w, 768]"""
    split = frames.unflatten(3, (-1, SPATIAL_STRIDE)).unflatten(2, (-1, SPATIAL_STRIDE))
    return split.unflatten(1, (-1, TEMPORAL_STRIDE)).permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def frames_of_pixels(pixels: Tensor) -> Tensor:
    """The inverse of `pixels_of_latents`. [B, n, h, w, 768] -> [B, 4n, 8h, 8w, 3]"""
    split = pixels.unflatten(4, (TEMPORAL_STRIDE, SPATIAL_STRIDE, SPATIAL_STRIDE, 3))
    # [B, n, h, w, 4, 8, 8, 3] -> [B, n, 4, h, 8, w, 8, 3]
    return split.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def encoder_reach(config: TinyConfig) -> int:
    """How many frames before a latent's own four it depends on: every memory block sees one step further back."""
    if not config.encoder_width:
        return 0
    steps = 0
    for pooled in reversed(_POOLED):
        steps = (steps + MEMORY_BLOCKS) * pooled
    return steps


def _memory_shapes(layers: nn.Sequential, stages: list[tuple[int, int, int, int]]) -> MemoryShapes:
    names = [name for name, layer in layers.named_children() if isinstance(layer, MemoryBlock)]
    return {name: stages[i // MEMORY_BLOCKS] for i, name in enumerate(names)}


def _run(layers: nn.Sequential, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    after: Memory = {}
    for name, layer in layers.named_children():
        if isinstance(layer, MemoryBlock):
            # Alone, so that the other frames can be freed; in one layout, whatever the compiler chose for x.
            after[name] = x[:, -1].clone(memory_format=torch.contiguous_format)
            x = layer(x, memory[name])
        else:
            x = layer(x)
    return x, after


def _conv3(in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True) -> FrameConv:
    return FrameConv(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


def _encoder_layers(config: TinyConfig) -> OrderedDict[str, nn.Module]:
    """In running order, by the published names; none where the linear path is all."""
    width = config.encoder_width
    if not width:
        return OrderedDict()
    layers: list[nn.Module] = [_conv3(3, width), _relu()]
    for pooled in _POOLED:
        layers += [PoolTime(width, pooled), _conv3(width, width, stride=2, bias=False)]
        layers += [MemoryBlock(width) for _ in range(MEMORY_BLOCKS)]
    layers.append(_conv3(width, config.latent_channels))
    return OrderedDict((str(i), layer) for i, layer in enumerate(layers))


def _decoder_layers(config: TinyConfig) -> OrderedDict[str, nn.Module]:
    """In running order, by the published names.

    As published, pixels are doubled before frames are. Both work pixel by pixel, so the result is the same the
    other way round, for a quarter of the work.
    """
    widths = config.decoder_widths
    if not widths:
        return OrderedDict()
    layers: dict[int, nn.Module] = {
        0: SoftClamp(),
        1: _conv3(config.latent_channels, widths[0]),
        2: _relu(),
    }
    for stage, (width, next_width) in enumerate(pairwise(widths)):
        first = 3 + stage * (MEMORY_BLOCKS + 3)
        layers |= {first + i: MemoryBlock(width) for i in range(MEMORY_BLOCKS)}
        layers[first + MEMORY_BLOCKS + 1] = GrowTime(width, GROWN[stage])
        layers[first + MEMORY_BLOCKS] = Upsample()
        layers[first + MEMORY_BLOCKS + 2] = _conv3(width, next_width, bias=False)
    layers |= {21: _relu(), 22: _conv3(widths[-1], 3)}
    return OrderedDict((str(i), layer) for i, layer in layers.items())
