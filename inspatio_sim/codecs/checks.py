"""What a codec refuses: videos, latents and states that do not fit it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inspatio_sim.errors import InputError


def check_video(video: Tensor, *, spatial_stride: int) -> None:
    """A video of at least one frame, three channels, and a size that the stride divides. [B, T, 3, H, W]"""
    _check_tensor("video", video, channels=3, wanted="float [B, T, 3, H, W]")
    for name, size_px in (("height", video.shape[3]), ("width", video.shape[4])):
        if size_px % spatial_stride or size_px == 0:
            below = max(size_px // spatial_stride * spatial_stride, spatial_stride)
            near = [str(size) for size in (below, below + spatial_stride) if abs(size - size_px) < spatial_stride]
            raise InputError(
                f"video: {name} {size_px} px came: want a multiple of {spatial_stride}, such as {' or '.join(near)}"
            )


def check_latents(latents: Tensor, *, latent_channels: int) -> None:
    """At least one latent, with the codec's channels. [B, t, latent_channels, h, w]"""
    _check_tensor(
        "latents", latents, channels=latent_channels, wanted=f"float [B, t, {latent_channels}, h, w] with t from 1"
    )


def check_num_frames(num_frames: int, *, is_first: bool, temporal_stride: int) -> None:
    """A stream begins with 1, 5, 9, .. frames (at stride 4) and goes on with 4, 8, 12, .."""
    excess = (num_frames - is_first) % temporal_stride
    if num_frames < 1 or excess:
        below = num_frames - excess
        near = [str(count) for count in (below, below + temporal_stride) if count > 0]
        kind, rule = ("first", f"{temporal_stride}n + 1") if is_first else ("later", f"{temporal_stride}n")
        raise InputError(
            f"video: {num_frames} frames came in a {kind} chunk: want {rule} of them, such as {' or '.join(near)}"
        )


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """A state with the tensors that the chunk's stream has, by name and shape.

    Args:
        state: what a chunk before gave.
        wanted: the shape of each tensor, batch first; -1 fits any length.
    """
    if set(state) != set(wanted):
        raise InputError(
            f"state: holds {sorted(state)[:4]}..: want one that the same half of the same codec gave, with "
            f"{sorted(wanted)[:4]}.."
        )
    for name, shape in wanted.items():
        came = tuple(state[name].shape)
        if len(came) != len(shape) or any(w not in (-1, c) for c, w in zip(came, shape, strict=True)):
            raise InputError(
                f"state: {name} has shape {came}, these inputs need {shape}: want as many streams, of the same "
                "size, as in the chunk before"
            )


def _check_tensor(name: str, tensor: Tensor, *, channels: int, wanted: str) -> None:
    is_whole = tensor.ndim == 5 and tensor.shape[2] == channels and tensor.numel() > 0
    if not (is_whole and torch.is_floating_point(tensor)):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{name}: {kind} {list(tensor.shape)} came: want {wanted}")
