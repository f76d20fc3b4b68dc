"""The reference's latents at any moment: encoded once, kept on disk, encoded live only where time plays tricks.

A block shows the reference frames that the world's clock names. Played forward they are a stretch of the
clip, whose latents exist already. A clock that stands still, turns round or jumps makes clips of its own: for
those the block's frames are encoded behind as many earlier ones as a latent can depend on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, save_arrays
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.generators.blocks.pixels import video_from
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import Reference

log = logging.getLogger(__name__)

MAX_STRETCHES = 64  # encoded live and kept in memory: a frozen or looping clock needs the same few again and again
MAX_FILES = 64  # clips whose latents are kept on disk; the least recently used go first
ENCODED_AT_ONCE = 4  # latents, unless memory is short


class ReferenceLatents:
    """Latents of one clip, for any sequence of its frames."""

    def __init__(
        self, frames_u8: NDArray[np.uint8], codec: Codec, forward: Tensor, *, chunk_latents: int = ENCODED_AT_ONCE
    ) -> None:
        """From frames [T, H, W, 3] and the latents of all of them, played forward. [n, C, h, w]"""
        self._chunk_latents = chunk_latents
        self.forward = forward
        self._frames_u8 = frames_u8
        self._codec = codec
        self._stretches: OrderedDict[bytes, Tensor] = OrderedDict()

    @classmethod
    def of(
        cls,
        reference: Reference,
        codec: Codec,
        *,
        codec_identity: str,
        chunk_latents: int = ENCODED_AT_ONCE,
        progress: Progress | None = None,
    ) -> ReferenceLatents:
        """Read the clip's latents from disk, or encode and keep them.

        Args:
            reference: the clip.
            codec: what encodes it.
            codec_identity: differs between codecs whose latents differ, by weights or by precision.
            chunk_latents: encoded at once; fewer need less memory.
            progress: told the share encoded.
        """
        path = cache_folder() / "latents" / f"{_key(reference.frames_u8, codec_identity)}.safetensors"
        forward = _read(path)
        if forward is None:
            frame_idx = np.arange(reference.num_frames)
            forward = encode_frames(
                reference.frames_u8, frame_idx, codec, chunk_latents=chunk_latents, progress=progress
            )
            _keep(path, forward)
        return cls(reference.frames_u8, codec, forward, chunk_latents=chunk_latents)

    def of_block(self, shown: NDArray[np.int64], block: NDArray[np.int64]) -> Tensor:
        """The reference's latents of one block.

        A codec that looks ahead sees, at the end of a stretch played forward, what the clip shows next: those are
        the latents of the clip. Of frames in any other order it cannot know what would come: the last is repeated.

        Args:
            shown: reference frames of the blocks before: all of them, or the last `num_remembered`.
            block: reference frames of this one.

        Returns:
            float32, on the CPU. [1, n, C, h, w]
        """
        stride = self._codec.temporal_stride
        num_latents = -(-len(block) // stride)
        frame_idx = np.concatenate([shown, block])
        first, last = int(frame_idx[0]), int(frame_idx[-1])
        is_forward = np.array_equal(frame_idx, np.arange(first, last + 1)) and first % stride == last % stride == 0
        if is_forward and (first == 0 or len(shown) >= num_remembered(self._codec)):
            stop = last // stride + 1
            return self.forward[None, stop - num_latents : stop]
        key = frame_idx.tobytes()
        if key not in self._stretches:
            latents = encode_frames(self._frames_u8, frame_idx, self._codec, chunk_latents=self._chunk_latents)
            self._stretches[key] = latents[-num_latents:]
            if len(self._stretches) > MAX_STRETCHES:
                self._stretches.popitem(last=False)
        self._stretches.move_to_end(key)
        return self._stretches[key][None]


def num_remembered(codec: Codec) -> int:
    """Shown frames that a codec's next latents depend on, rounded up to whole latents behind a first frame."""
    return 1 + codec.temporal_stride * -(-codec.memory_frames // codec.temporal_stride)


def encode_frames(
    frames_u8: NDArray[np.uint8],
    frame_idx: NDArray[np.int64],
    codec: Codec,
    *,
    chunk_latents: int = ENCODED_AT_ONCE,
    progress: Progress | None = None,
) -> Tensor:
    """Encode a sequence of a clip's frames as one stream, a little at a time.

    Where the last latent wants more frames than there are, the last one is repeated.

    Args:
        frames_u8: [T, H, W, 3]
        frame_idx: [F]
        codec: what encodes.
        chunk_latents: encoded at once.
        progress: told the share done.

    Returns:
        float32, on the CPU. [1 + ceil((F - 1) / 4), C, h, w]
    """
    stride = codec.temporal_stride
    frame_idx = np.concatenate([frame_idx, np.repeat(frame_idx[-1:], -(len(frame_idx) - 1) % stride)])
    state, pieces, start = None, [], 0
    while start < len(frame_idx):
        stop = start + stride * chunk_latents - (stride - 1 if start == 0 else 0)
        video = video_from(frames_u8[frame_idx[start:stop]])[None]
        latents, state = codec.encode_complete(video, state)
        pieces.append(latents[0].float().cpu())
        start = stop
        if progress:
            progress("encoding the clip", min(1.0, start / len(frame_idx)))
    assert state is not None, "a clip has at least one frame"
    pieces.append(codec.finish(state)[0].float().cpu())
    return torch.cat(pieces)


def _key(frames_u8: NDArray[np.uint8], codec_identity: str) -> str:
    digest = hashlib.blake2b(f"{codec_identity}\0{frames_u8.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(frames_u8).data)
    return digest.hexdigest()


def _read(path: Path) -> Tensor | None:
    try:
        if not path.exists():
            return None
        latents = torch.from_numpy(load_file(path)["latents"])
        os.utime(path)  # recently used
    except (OSError, SafetensorError, KeyError) as error:
        log.warning("kept latents %s cannot be read (%s): encoding the clip again", path, error)
        return None
    return latents


def _keep(path: Path, latents: Tensor) -> None:
    """A cache that cannot be written costs time, nothing else."""
    try:
        with replacing(path) as temporary:
            save_arrays({"latents": latents.numpy()}, temporary)
        files = sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for old in files[:-MAX_FILES]:
            with suppress(OSError):
                old.unlink()
    except (OSError, InputError) as error:
        log.warning("latents of the clip not kept: %s", error)
