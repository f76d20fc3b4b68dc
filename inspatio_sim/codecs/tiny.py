"""The tiny video codec: TAEHV behind the protocol, with every stream's memory in the caller's hands.

Two ways to lay frames on latents (`TinyConfig.time_alignment`):

- look-ahead, as published: latent k sees frames up to 4k+3, three more than a stream has at latent k. The last
  latent of a chunk is therefore provisional: its missing frames are the last one, repeated. The state keeps what
  came before it and the frame itself, so the next chunk goes on from its true frames. Of a whole clip, only the
  last latent is made so. `encode_complete` and `finish` give true latents only, later.
- causal, for weights trained so: latent k sees frames up to 4k, and the first frame counts four times. Chunks
  give what the whole clip gives.

Decoded chunks give what the whole clip gives, bit for bit in float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inspatio_sim.codecs.checks import check_latents, check_num_frames, check_state, check_video
from inspatio_sim.codecs.protocol import CodecState
from inspatio_sim.codecs.tiny_network import MemoryShapes, TinyAutoencoder, encoder_reach
from inspatio_sim.errors import InputError
from inspatio_sim.latents import SPATIAL_STRIDE, TEMPORAL_STRIDE

Encode = Callable[..., tuple[Tensor, dict[str, Tensor]]]

_PENDING = "pending"  # of the state: frames whose group of four is not complete. [B, 0..3, H, W, 3]


class TinyCodec:
    """A TinyAutoencoder as a `Codec`. Works in the network's dtype and on its device; gives what it was given."""

    spatial_stride: int = SPATIAL_STRIDE
    temporal_stride: int = TEMPORAL_STRIDE

    def __init__(self, network: TinyAutoencoder) -> None:
        self.network = network
        self.latent_channels: int = network.config.latent_channels
        self.memory_frames: int = encoder_reach(network.config)
        self._encode_live = network.encode
        self._decode = network.decode

    def compile(self) -> None:
        """Let torch.compile make `encode_chunk` and `decode_chunk` faster; each new size then takes long at first.

        Whole clips are encoded as before: their lengths differ, and they are encoded once.
        """
        self._encode_live = torch.compile(self.network.encode, dynamic=False)
        self._decode = torch.compile(self.network.decode, dynamic=False)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Encode a whole clip of any length; the last frame is repeated until it fills a latent."""
        check_video(video, spatial_stride=SPATIAL_STRIDE)
        frames = self._begin(self._frames_of(video))
        return _latents_from(self.network.encode(_completed(frames))[0], like=video)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode n latents of a whole clip to 4n - 3 frames."""
        return self.decode_chunk(latents)[0]

    @torch.no_grad()
    def encode_chunk(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Encode the next frames of a stream; None begins one.

        With look-ahead the last latent is provisional (see above). The true one is not given later.
        """
        check_video(video, spatial_stride=SPATIAL_STRIDE)
        check_num_frames(video.shape[1], is_first=state is None, temporal_stride=TEMPORAL_STRIDE)
        if state is not None:
            self._check_encoder_state(state, video)
            num_pending = state[_PENDING].shape[1]
            if num_pending != (0 if self._is_causal else 1):
                raise InputError(f"state: holds {num_pending} {_PENDING} frames: want one that encode_chunk gave")
        latents, after = self._encode_groups(video, state, self._encode_live)
        if self._is_causal:
            return latents, after
        provisional = self._encode_pending(after, self._encode_live)
        known = latents if state is None else latents[:, 1:]  # the first was given before, provisionally
        return torch.cat([known, provisional.to(latents)], dim=1), after

    @torch.no_grad()
    def encode_complete(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Encode any number of frames to those latents whose frames are all there, perhaps none."""
        return self._encode_groups(video, state, self.network.encode)

    @torch.no_grad()
    def finish(self, state: CodecState) -> Tensor:
        """The latent of the frames that `state` still holds, the last one repeated: one, or none if it holds none."""
        return self._encode_pending(state, self.network.encode)

    def _encode_groups(self, video: Tensor, state: CodecState | None, encode: Encode) -> tuple[Tensor, CodecState]:
        check_video(video, spatial_stride=SPATIAL_STRIDE)
        frames = self._frames_of(video)
        if state is None:
            frames = self._begin(frames)
            memory = self.network.no_memory(self._encoder_memory_shapes(video))
        else:
            self._check_encoder_state(state, video)
            frames = torch.cat([state[_PENDING], frames], dim=1)
            memory = {name: tensor for name, tensor in state.items() if name != _PENDING}
        num_pending = frames.shape[1] % TEMPORAL_STRIDE
        complete, pending = frames.tensor_split([frames.shape[1] - num_pending], dim=1)
        if complete.shape[1]:
            encoded, memory = encode(complete, memory)
        else:
            encoded = self._no_latents(frames)
        return _latents_from(encoded, like=video), {**memory, _PENDING: pending.clone()}

    def _encode_pending(self, state: CodecState, encode: Encode) -> Tensor:
        if _PENDING not in state:
            raise InputError(f"state: holds {sorted(state)[:4]}..: want one that encode_complete or encode_chunk gave")
        pending = state[_PENDING]
        if not pending.shape[1]:
            return _latents_from(self._no_latents(pending), like=pending)
        memory = {name: tensor for name, tensor in state.items() if name != _PENDING}
        return _latents_from(encode(_completed(pending), memory)[0], like=pending)

    @torch.no_grad()
    def decode_chunk(self, latents: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Decode the next latents of a stream; None begins one."""
        check_latents(latents, latent_channels=self.latent_channels)
        if state is not None:
            batch, _, _, height, width = latents.shape
            check_state(state, self.network.decoder_memory_shapes(batch, height, width))
        frames, after = self._decode(latents.to(self._like).movedim(2, -1), state)
        if state is None:
            frames = frames[:, TEMPORAL_STRIDE - 1 :]
        video = frames.to(latents.dtype).clamp(0, 1) * 2 - 1
        return video.movedim(-1, 2), after

    @property
    def _is_causal(self) -> bool:
        return self.network.config.time_alignment == "causal"

    @property
    def _like(self) -> Tensor:
        """A tensor with the network's dtype and device."""
        return next(self.network.parameters())

    def _frames_of(self, video: Tensor) -> Tensor:
        """Video in [-1, 1] [B, T, 3, H, W] as the network's frames in [0, 1] [B, T, H, W, 3]."""
        return ((video + 1) / 2).to(self._like).movedim(2, -1)

    def _begin(self, frames: Tensor) -> Tensor:
        """A stream's first frames, preceded by what makes them groups."""
        if not self._is_causal:
            return frames
        return torch.cat([frames[:, :1].expand(-1, TEMPORAL_STRIDE - 1, -1, -1, -1), frames], dim=1)

    def _no_latents(self, frames: Tensor) -> Tensor:
        batch, _, height_px, width_px, _ = frames.shape
        size = (height_px // SPATIAL_STRIDE, width_px // SPATIAL_STRIDE)
        return frames.new_empty(batch, 0, *size, self.latent_channels)

    def _check_encoder_state(self, state: CodecState, video: Tensor) -> None:
        batch, _, _, height_px, width_px = video.shape
        check_state(state, {**self._encoder_memory_shapes(video), _PENDING: (batch, -1, height_px, width_px, 3)})

    def _encoder_memory_shapes(self, video: Tensor) -> MemoryShapes:
        batch, _, _, height_px, width_px = video.shape
        return self.network.encoder_memory_shapes(batch, height_px, width_px)


def _completed(frames: Tensor) -> Tensor:
    """Frames, the last one repeated until they make whole groups. [B, T, H, W, 3]"""
    num_missing = -frames.shape[1] % TEMPORAL_STRIDE
    return torch.cat([frames, frames[:, -1:].expand(-1, num_missing, -1, -1, -1)], dim=1)


def _latents_from(encoded: Tensor, *, like: Tensor) -> Tensor:
    """[B, n, h, w, C] to [B, n, C, h, w], in the dtype of `like`."""
    return encoded.to(like.dtype).movedim(-1, 2).contiguous()
