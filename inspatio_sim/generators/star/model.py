"""The STAR transformer: Wan2.1's text-to-video blocks over latents, masks and renders.

Shapes: B batch, F latent frames, C channels, h w latents, N = F (h / 2) (w / 2) tokens, D width, H heads,
K head width, L text rows. State-dict names are Wan2.1's.

Source: Wan2.1 (arXiv 2503.20314), InSpatio-World (arXiv 2604.07209).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.attention import attention, rotary_table, rotate
from inspatio_sim.generators.blocks.modulation import (
    NORM_EPS,
    BlockModulation,
    TimeModulation,
    modulated_norm,
    modulation_table,
)
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.cache import STCache, TapeCache
from inspatio_sim.latents import BLOCK_LATENTS

Cache = STCache | TapeCache  # to generate with; to train with

# Where each begins on the rotary time axis.
REFERENCE_SLOT, HISTORY_SLOT, BLOCK_SLOT = 0, BLOCK_LATENTS, 2 * BLOCK_LATENTS


@dataclass(frozen=True)
class TextKeys:
    """Keys and values of a prompt in every layer; made once per prompt."""

    keys: list[Tensor]  # per layer. [B, L, H, K]
    values: list[Tensor]


class StarTransformer(nn.Module):
    """Flow of a block of latents, given its context, its renders, a prompt and a timestep."""

    def __init__(self, config: StarConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        blocks: Any = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.blocks: Sequence[Block] = blocks
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        return self.head.modulation.dtype

    @property
    def device(self) -> torch.device:
        return self.head.modulation.device

    def time_modulation(self, timestep: Tensor) -> TimeModulation:
        """What the network takes from timesteps. [B]"""
        frequencies = 10000.0 ** (
            -torch.arange(self.config.freq_dim // 2, dtype=torch.float64, device=timestep.device)
            / (self.config.freq_dim // 2)
        )
        angles = timestep.double()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        e = self.time_embedding(waves.to(self.dtype))  # [B, D]
        e6 = self.time_projection(e).unflatten(1, (6, -1))  # [B, 6, D]
        blocks = []
        for block in self.blocks:
            shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.modulation + e6).split(1, dim=1)
            blocks.append(BlockModulation(shift, 1 + scale, gate, ffn_shift, 1 + ffn_scale, ffn_gate))
        head_shift, head_scale = (self.head.modulation + e[:, None]).split(1, dim=1)
        return TimeModulation(blocks, head_shift, 1 + head_scale)

    def text_keys(self, text: Tensor) -> TextKeys:
        """Keys and values of prompts; short ones are padded with zero rows, which are attended to like others.

        Args:
            text: embedding of the prompts. [B, at most text_len, text_dim]
        """
        if text.shape[1] > self.config.text_len:
            raise InputError(f"text: {text.shape[1]} rows came: want at most text_len={self.config.text_len}")
        text = F.pad(text, (0, 0, 0, self.config.text_len - text.shape[1]))
        embedded = self.text_embedding(text.to(self.dtype))
        pairs = [block.cross_attn.keys_values(embedded) for block in self.blocks]
        return TextKeys([k for k, _ in pairs], [v for _, v in pairs])

    def rotary(self, frame_idx: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Rotary tables for frames at given time slots and latents of h x w."""
        return rotary_table(frame_idx, h // PATCH, w // PATCH, self.config.head_dim, self.device)

    def tokens(self, latents: Tensor) -> Tensor:
        """Patches to tokens; channels that are not given count as zero. [B, F, C <= 36, h, w] -> [B, N, D]"""
        channels = latents.shape[2]
        patches = rearrange(latents.to(self.dtype), "b f c (h p) (w q) -> b (f h w) (c p q)", p=PATCH, q=PATCH)
        return F.linear(patches, self.patch_embedding.weight[:, :channels].flatten(1), self.patch_embedding.bias)

    def forward(self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """One joint pass in which every token sees every other. [B, F, C <= 36, h, w] -> [B, F, 16, h, w]"""
        x = self.tokens(latents)
        for layer, block in enumerate(self.blocks):
            x = block(x, time.blocks[layer], text.keys[layer], text.values[layer], rotary)
        return self.head(x, time, *latents.shape[-2:])

    def write_context(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: Cache
    ) -> None:
        """Fill the cache from context frames; after the last layer's keys and values nothing is left to do.

        Args:
            latents: reference, then history; without mask and render. [B, F, 16, h, w]
            time: of timestep 0.
            text: the prompt.
            rotary: tables of the frames' slots.
            cache: to be overwritten.
        """
        x = self.tokens(latents)
        cache.begin(x.shape[1])
        for layer, block in enumerate(self.blocks[:-1]):
            x, k, v = block.with_keys(x, time.blocks[layer], text.keys[layer], text.values[layer], rotary)
            cache.write(layer, k, v)
        last = len(self.blocks) - 1
        cache.write(last, *self.blocks[last].keys_values(x, time.blocks[last], rotary))

    def denoise(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: Cache
    ) -> Tensor:
        """Flow of the current block, which sees the cache and itself.

        Args:
            latents: noisy, mask, render; or the noisy ones alone in text-only mode. [B, F, 36 or 16, h, w]
            time: of the step.
            text: the prompt.
            rotary: tables of the block's slots.
            cache: filled by `write_context`, or empty.
        """
        x = self.tokens(latents)
        for layer, block in enumerate(self.blocks):
            seen: dict[str, tuple[Tensor, Tensor] | None]
            if isinstance(cache, TapeCache):
                seen = {"before": cache.context(layer)}
            else:
                seen = {"room": cache.with_room(layer, x.shape[1])}
            x = block(x, time.blocks[layer], text.keys[layer], text.values[layer], rotary, **seen)
        return self.head(x, time, *latents.shape[-2:])


class Block(nn.Module):
    """Self-attention, attention to the text, feed-forward; the timestep modulates the first and the last."""

    def __init__(self, config: StarConfig) -> None:
        super().__init__()
        self.modulation = modulation_table(1, 6, config.dim)
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )

    def forward(
        self,
        x: Tensor,
        time: BlockModulation,
        text_k: Tensor,
        text_v: Tensor,
        rotary: tuple[Tensor, Tensor],
        room: tuple[Tensor, Tensor] | None = None,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[B, N, D] -> [B, N, D]

        Args:
            x: tokens.
            time: what the timestep does.
            text_k: keys of the prompt. [B, L, H, K]
            text_v: values of the prompt. [B, L, H, K]
            rotary: tables of the tokens' places.
            room: cached keys and values that the tokens see too; their last N are overwritten by the tokens' own.
            before: the same for training: they are joined with the tokens' own, nothing is overwritten.
        """
        q, k, v = self.self_attn.project(modulated_norm(x, time.attention_scale, time.attention_shift), rotary)
        if room is not None:
            num_tokens = x.shape[1]
            room[0][:, -num_tokens:].copy_(k)
            room[1][:, -num_tokens:].copy_(v)
            k, v = room
        elif before is not None:
            k, v = torch.cat([before[0], k], dim=1), torch.cat([before[1], v], dim=1)
        return self._rest(x, attention(q, k, v), time, text_k, text_v)

    def with_keys(
        self, x: Tensor, time: BlockModulation, text_k: Tensor, text_v: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] -> [B, N, D], and the rotated keys and the values that the tokens leave here."""
        q, k, v = self.self_attn.project(modulated_norm(x, time.attention_scale, time.attention_shift), rotary)
        return self._rest(x, attention(q, k, v), time, text_k, text_v), k, v

    def keys_values(self, x: Tensor, time: BlockModulation, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Only what the tokens leave for others. Two of [B, N, H, K]"""
        return self.self_attn.keys_values(modulated_norm(x, time.attention_scale, time.attention_shift), rotary)

    def _rest(self, x: Tensor, attended: Tensor, time: BlockModulation, text_k: Tensor, text_v: Tensor) -> Tensor:
        x = torch.addcmul(x, self.self_attn.o(attended.flatten(2)), time.attention_gate)
        x = x + self.cross_attn(self.norm3(x), text_k, text_v)
        y = self.ffn(modulated_norm(x, time.ffn_scale, time.ffn_shift))
        return torch.addcmul(x, y, time.ffn_gate)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, all heads together."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), NORM_EPS)


class SelfAttention(nn.Module):
    """Projections of self-attention: normalised and rotated queries and keys, plain values."""

    def __init__(self, config: StarConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(config.dim), RMSNorm(config.dim)

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] -> q, k, v, each [B, N, H, K]"""
        q = rotate(self._heads(self.norm_q(self.q(x))), rotary).to(x.dtype)
        return q, *self.keys_values(x, rotary)

    def keys_values(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """[B, N, D] -> k, v, each [B, N, H, K]"""
        k = rotate(self._heads(self.norm_k(self.k(x))), rotary).to(x.dtype)
        return k, self._heads(self.v(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


class CrossAttention(nn.Module):
    """Attention of the tokens to the text."""

    def __init__(self, config: StarConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(config.dim), RMSNorm(config.dim)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, D] -> keys and values, each [B, L, H, K]"""
        return self._heads(self.norm_k(self.k(text))), self._heads(self.v(text))

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        q = self._heads(self.norm_q(self.q(x)))
        return self.o(attention(q, k, v).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


class Head(nn.Module):
    """Tokens back to latents."""

    def __init__(self, config: StarConfig) -> None:
        super().__init__()
        self.modulation = modulation_table(1, 2, config.dim)
        self.head = nn.Linear(config.dim, PATCH * PATCH * config.out_channels)

    def forward(self, x: Tensor, time: TimeModulation, h: int, w: int) -> Tensor:
        """[B, N, D] -> [B, F, 16, h, w]"""
        patches = self.head(modulated_norm(x, time.head_scale, time.head_shift))
        return rearrange(
            patches, "b (f h w) (p q c) -> b f c (h p) (w q)", h=h // PATCH, w=w // PATCH, p=PATCH, q=PATCH
        )
