"""The frame transformer: PixArt-Sigma's blocks over three images side by side, all tokens seeing each other.

Shapes: B batch, C latent channels, h w latents, I images (3, or the noisy one alone), n tokens of an image,
N = I n tokens, D width, H heads, K head width. State-dict names are the published ones.

Source: PixArt-Sigma (arXiv 2403.04692), InSpatio-WorldFM (arXiv 2603.11911).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.attention import attention
from inspatio_sim.generators.blocks.modulation import BlockModulation, TimeModulation, modulated_norm, modulation_table
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES, PLUCKER_CHANNELS, TIME_WAVES, FrameConfig


class FrameTransformer(nn.Module):
    """What is to be taken from a noisy image, given the anchors' render, a reference view and a timestep."""

    pos_embed: Tensor  # of one image; in published files, for completeness

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_size
        self.x_embedder = PatchEmbedder(config)
        self.t_embedder = TimestepEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        blocks: Any = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.blocks: Sequence[Block] = blocks
        self.final_layer = FinalLayer(config)
        if config.has_caption:
            self.y_embedder = CaptionEmbedder(config)
            self.plucker_proj = nn.Sequential(nn.Linear(PLUCKER_CHANNELS, dim), nn.SiLU(), nn.Linear(dim, dim))
            # of numbers even where the module is built on the meta device: files may lack it
            table = position_table(config, config.base_size, config.base_size, device="cpu")
            self.register_buffer("pos_embed", table[None].to(torch.get_default_dtype()))
        self._positions: dict[tuple[int, int, torch.device], Tensor] = {}

    def forget_caption(self) -> None:
        """Give free what published files hold for a caption, a quarter of them; afterwards good for generating only."""
        for block in self.blocks if self.config.has_caption else ():
            del block.cross_attn
        if self.config.has_caption:
            del self.y_embedder, self.plucker_proj

    @property
    def dtype(self) -> torch.dtype:
        return self.final_layer.scale_shift_table.dtype

    @property
    def device(self) -> torch.device:
        return self.final_layer.scale_shift_table.device

    def forward(
        self, x: Tensor, timestep: Tensor, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """Say what the noisy image holds.

        Args:
            x: noisy latents. [B, C, h, w]
            timestep: int64, of each image or of all. [B or 1]
            anchors: latents of the anchors' render, and the mask. [B, C + mask_channels, h, w]
            reference: the same of the reference view; without both, the noisy image is alone.

        Returns:
            For the noisy image only. [B, out_channels, h, w]
        """
        return self.denoise(x, self.modulation(timestep), anchors, reference)

    def denoise(
        self, x: Tensor, time: TimeModulation, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """As `forward`, with what `modulation` gave."""
        tokens = self.tokens(x, anchors, reference)
        num_wanted = self.config.tokens_of(*x.shape[-2:])
        for layer, block in enumerate(self.blocks):
            is_last = layer == self.config.depth - 1
            tokens = block(tokens, time.blocks[layer], num_wanted if is_last else None)
        return self.final_layer(tokens, time, *x.shape[-2:])

    def modulation(self, timestep: Tensor) -> TimeModulation:
        """All that the network takes from timesteps; to be kept for those that come again. [B or 1]"""
        e = self.t_embedder(timestep_waves(timestep).to(self.dtype))  # [B, D]
        e6 = self.t_block(e).unflatten(1, (6, -1))  # [B, 6, D]
        blocks = []
        for block in self.blocks:
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (block.scale_shift_table + e6).split(1, dim=1)
            blocks.append(BlockModulation(shift, 1 + scale, gate, mlp_shift, 1 + mlp_scale, mlp_gate))
        shift, scale = (self.final_layer.scale_shift_table + e[:, None]).split(1, dim=1)
        return TimeModulation(blocks, shift, 1 + scale)

    def positions(self, h: int, w: int) -> Tensor:
        """Of the tokens of three images of h x w latents, image by image; made once a size. float32 [3 n, D]"""
        key = (h, w, self.device)
        if key not in self._positions:
            num_tokens, columns = self.config.tokens_of(h, w), w // self.config.patch_size
            with torch.inference_mode(False):  # training may come later
                table = position_table(self.config, num_tokens // columns, NUM_IMAGES * columns, device="cpu")
                table = rearrange(table, "(r i c) d -> (i r c) d", i=NUM_IMAGES, c=columns)
                self._positions[key] = table.float().contiguous().to(self.device)
        return self._positions[key]

    def tokens(self, x: Tensor, anchors: Tensor | None = None, reference: Tensor | None = None) -> Tensor:
        """Tokens of the noisy image, then of the anchors and of the reference, each at its place. -> [B, N, D]"""
        if (anchors is None) != (reference is None):
            raise InputError(f"{'anchors' if anchors is None else 'reference'}: None came: want both images or neither")
        images = F.pad(x, (0, 0, 0, 0, 0, self.config.mask_channels))[:, None]  # [B, I, C + mask, h, w]
        if anchors is not None and reference is not None:
            images = torch.cat([images, anchors[:, None], reference[:, None]], dim=1)
        positions = self.positions(*x.shape[-2:])
        tokens = self.x_embedder(images.to(self.dtype))
        return (tokens + positions[: tokens.shape[1]]).to(self.dtype)


def position_table(config: FrameConfig, rows: int, columns: int, device: torch.device | str | None = None) -> Tensor:
    """Sines and cosines of the places of rows x columns tokens, row by row. float64 [rows * columns, D]

    Whatever their number, rows and columns each span `base_size`: of three images side by side each has a third.
    Half the channels tell the column, half the row.
    """
    num_waves = config.hidden_size // 4
    wave_numbers = 10000.0 ** (-torch.arange(num_waves, dtype=torch.float64, device=device) / num_waves)

    def waves(count: int) -> Tensor:
        place = torch.arange(count, dtype=torch.float64, device=device) * config.base_size / count
        angle = (place / config.pe_interpolation)[:, None] * wave_numbers
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    of_column = waves(columns)[None].expand(rows, -1, -1)
    of_row = waves(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([of_column, of_row], dim=2).flatten(0, 1)


def timestep_waves(timestep: Tensor) -> Tensor:
    """Cosines, then sines of timesteps at falling frequencies. [B] -> float32 [B, TIME_WAVES]

    In float32 as the published networks were trained: its rounding of angles up to 999 is theirs too.
    """
    half = TIME_WAVES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half)
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class PatchEmbedder(nn.Module):
    """Patches to tokens."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.Conv2d(config.in_channels + config.mask_channels, config.hidden_size, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """[B, I, C, h, w] -> [B, N, D]"""
        p, q = self.proj.kernel_size
        patches = rearrange(images, "b i c (r p) (l q) -> b (i r l) (c p q)", p=p, q=q)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class TimestepEmbedder(nn.Module):
    """Waves of timesteps to vectors. [B, TIME_WAVES] -> [B, D]"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, waves: Tensor) -> Tensor:
        return self.mlp(waves)


class Block(nn.Module):
    """Attention among all tokens, then two layers for each; the timestep modulates both."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.scale_shift_table = modulation_table(6, config.hidden_size)
        self.attn = SelfAttention(config)
        self.mlp = Mlp(config.hidden_size, config.mlp_size)
        if config.has_caption:
            self.cross_attn = CrossAttention(config.hidden_size)

    def forward(self, x: Tensor, time: BlockModulation, num_wanted: int | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D], or the first `num_wanted` tokens only: of the last block no others are needed."""
        q, k, v = self.attn.project(modulated_norm(x, time.attention_scale, time.attention_shift), num_wanted)
        x = x[:, :num_wanted]
        x = torch.addcmul(x, self.attn.proj(attention(q, k, v).flatten(2)), time.attention_gate)
        y = self.mlp(modulated_norm(x, time.ffn_scale, time.ffn_shift))
        return torch.addcmul(x, y, time.ffn_gate)


class SelfAttention(nn.Module):
    """Projections of self-attention."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def project(self, x: Tensor, num_wanted: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] -> queries of the first `num_wanted` tokens or of all, keys, values, each [B, N, H, K]"""
        if num_wanted is None or num_wanted == x.shape[1]:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
            return q, k, v
        dim = x.shape[-1]
        q = F.linear(x[:, :num_wanted], self.qkv.weight[:dim], self.qkv.bias[:dim])
        k, v = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return q.unflatten(-1, (self.num_heads, -1)), k, v


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, dim: int, hidden: int, dim_out: int | None = None) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim_out or dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class FinalLayer(nn.Module):
    """Tokens back to latents."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.scale_shift_table = modulation_table(2, config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, time: TimeModulation, h: int, w: int) -> Tensor:
        """[B, n, D] -> [B, out_channels, h, w]"""
        return self.image(self.linear(modulated_norm(x, time.head_scale, time.head_shift)), h, w)

    def image(self, patches: Tensor, h: int, w: int) -> Tensor:
        """[B, n, patch^2 out_channels] -> [B, out_channels, h, w]"""
        p = self.patch_size
        return rearrange(patches, "b (r l) (p q c) -> b c (r p) (l q)", r=h // p, l=w // p, p=p, q=p)


class CrossAttention(nn.Module):
    """Parameters of the attention to a caption, which is switched off."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_linear, self.kv_linear, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)


class CaptionEmbedder(nn.Module):
    """Parameters of the caption, which nothing reads."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.y_proj = Mlp(config.caption_channels, config.hidden_size, config.hidden_size)
        self.register_buffer("y_embedding", torch.zeros(config.model_max_length, config.caption_channels))
