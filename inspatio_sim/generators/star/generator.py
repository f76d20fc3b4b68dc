"""StarGenerator: the video student behind the `Generator` protocol, for a batch of worlds at once.

A block is `block_latents` latents: with 3 of them (as published) 9 frames first and 12 after; with 1, for low
latency, 1 frame first and 4 after. Worlds that begin and worlds that go on have contexts of different length,
so a mixed batch takes two forward passes.

Shapes: B worlds of a group, F latents of a block, T frames of a block, H W pixels, h w latents.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.protocol import Codec, CodecState
from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.mask_latent import mask_latent
from inspatio_sim.generators.blocks.paste import paste_renders
from inspatio_sim.generators.blocks.pixels import frames_from, video_from
from inspatio_sim.generators.blocks.refusals import (
    check_finite,
    check_whole_tokens,
    checked_seed,
    naming_what_is_too_big,
)
from inspatio_sim.generators.blocks.stopwatch import Stopwatch
from inspatio_sim.generators.presets.star_config import PIXELS_PER_TOKEN
from inspatio_sim.generators.protocol import Generation, PackedState
from inspatio_sim.generators.star.model import TextKeys
from inspatio_sim.generators.star.reference_latents import ENCODED_AT_ONCE, ReferenceLatents, num_remembered
from inspatio_sim.generators.star.sampler import BlockSampler
from inspatio_sim.latents import BLOCK_LATENTS, TEMPORAL_STRIDE, check_block_latents, num_frames_of
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import Reference
from inspatio_sim.text.protocol import TextEncoder

log = logging.getLogger(__name__)

MAX_PROMPTS = 16  # whose keys and values are kept


@dataclass(frozen=True, kw_only=True)
class StarState:
    """What one world's next block depends on, beside its condition. The ST-cache is not in it: it is rebuilt."""

    reference: ReferenceLatents
    prompt: str
    rng: Tensor  # state of the world's own random numbers. [5056] uint8
    shown: NDArray[np.int64]  # reference frames of the blocks before, as many as a latent can depend on
    history: Tensor | None  # the last block; None before the first. [1, F, 16, h, w]
    encoder: CodecState | None  # of the stream of renders
    decoder: CodecState | None


class StarGenerator:
    """Generates with a transformer, a codec and a text encoder; see `load.load_star` for how they come about."""

    name = "star"

    def __init__(
        self,
        sampler: BlockSampler,
        codec: Codec,
        text_encoder: TextEncoder,
        *,
        codec_identity: str,
        block_latents: int = BLOCK_LATENTS,
        low_memory: bool = False,
        pastes_renders: bool = False,
        best_size_px: tuple[int, int] = (480, 832),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            sampler: with the transformer.
            codec: frames to latents and back.
            text_encoder: prompts to embeddings.
            codec_identity: see `ReferenceLatents.of`.
            block_latents: 1 to 3.
            low_memory: encode and decode one latent at a time.
            pastes_renders: lay what is rendered over what is generated.
            best_size_px: height and width of the frames it was trained on.
            options: what makes this generator again, for saved worlds.
        """
        check_block_latents(block_latents)
        self.sampler = sampler
        self.codec = codec
        self.text_encoder = text_encoder
        self.block_latents = block_latents
        self.progress: Progress | None = None  # told of work that takes long, such as encoding a clip
        self.memory_plan: Mapping[str, int] = {}  # made before loading, where the size was known
        self._codec_identity = codec_identity
        self._low_memory = low_memory
        self._pastes_renders = pastes_renders
        self.best_size_px = best_size_px
        self._options = dict(options) if options is not None else None
        self._texts: OrderedDict[str, TextKeys] = OrderedDict()
        self._references: list[tuple[weakref.ref[Reference], ReferenceLatents]] = []

    @property
    def first_block_frames(self) -> int:
        return num_frames_of(self.block_latents)

    @property
    def frames_per_block(self) -> int:
        return TEMPORAL_STRIDE * self.block_latents

    @property
    def looks_real(self) -> bool:
        return True

    @property
    def options(self) -> dict[str, Any]:
        if self._options is None:
            raise InputError("this generator was put together by hand: a world of it cannot be saved by name")
        return dict(self._options)

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> StarState:
        """The state of a world that has generated nothing yet; encodes the clip if nobody has."""
        check_size(*reference.size_px)
        rng = torch.Generator().manual_seed(checked_seed(seed))
        self._text(prompt)  # a prompt that is too long is refused here
        return StarState(
            reference=self._latents_of(reference),
            prompt=prompt,
            rng=rng.get_state(),
            shown=np.empty(0, np.int64),
            history=None,
            encoder=None,
            decoder=None,
        )

    @torch.inference_mode()
    def generate(self, conditions: Sequence[Condition], states: Sequence[StarState]) -> Generation:
        """One block for each world; see `Generator`."""
        frames: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(states)
        after: list[StarState] = list(states)
        stopwatch = Stopwatch(self.sampler.transformer.device)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, (condition, state) in enumerate(zip(conditions, states, strict=True)):
            groups.setdefault((state.history is None, condition.render_u8.shape), []).append(i)
        for group in groups.values():
            group_conditions = [conditions[i] for i in group]
            with self._naming_what_is_too_big(len(group), *group_conditions[0].render_u8.shape[1:3]):
                blocks = self._generate_group(group_conditions, [states[i] for i in group], stopwatch)
            for i, (frames_u8, state) in zip(group, blocks, strict=True):
                frames[i], after[i] = frames_u8, state
        return Generation(frames_u8=frames, states=after, seconds=stopwatch.seconds())

    def observe(self, state: StarState, observation: Observation, reference: Reference) -> StarState:
        """The state as it is: what a block looked like is in its latents, how deep it is in the map."""
        del observation, reference
        return state

    def pack(self, state: StarState) -> PackedState:
        """A state as arrays: the last latents, both codec states, the random numbers, the prompt."""
        arrays = {
            "prompt": np.frombuffer(state.prompt.encode(), np.uint8),
            "rng": state.rng.numpy(),
            "shown": state.shown,
        }
        if state.history is not None:
            arrays["history"] = state.history.cpu().numpy()
        for part, codec_state in (("encoder", state.encoder), ("decoder", state.decoder)):
            for name, tensor in (codec_state or {}).items():
                arrays[f"{part}.{name}"] = tensor.float().cpu().numpy()  # exact for bfloat16 too
        return arrays

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> StarState:
        """The state that `pack` was given."""
        like, history = self.sampler.transformer, arrays.get("history")

        def codec_state(part: str) -> CodecState | None:
            if history is None:  # nothing was generated yet; later a state may be empty, but it is one
                return None
            names = [key for key in arrays if key.startswith(f"{part}.")]
            return {
                key.removeprefix(f"{part}."): torch.from_numpy(arrays[key].copy()).to(like.device, like.dtype)
                for key in names
            }

        return StarState(
            reference=self._latents_of(reference),
            prompt=arrays["prompt"].tobytes().decode(),
            rng=torch.from_numpy(arrays["rng"].copy()),
            shown=arrays["shown"].copy(),
            history=None if history is None else torch.from_numpy(history.copy()).to(like.device),
            encoder=codec_state("encoder"),
            decoder=codec_state("decoder"),
        )

    def _generate_group(
        self, conditions: list[Condition], states: list[StarState], stopwatch: Stopwatch
    ) -> list[tuple[NDArray[np.uint8], StarState]]:
        """Worlds that all begin, or all go on."""
        is_first = states[0].history is None
        device = self.sampler.transformer.device
        with stopwatch.stage("encode"):
            video = video_from(np.stack([condition.render_u8 for condition in conditions])).to(device)
            render, encoder = self._encode(video, _joined([state.encoder for state in states]))
            known = torch.from_numpy(np.stack([condition.is_rendered for condition in conditions])).to(device)
            mask = mask_latent(known[:, :, None].float().mul_(2).sub_(1), starts_clip=is_first)
            blocks = [condition.reference_frame_idx for condition in conditions]
            references = [
                state.reference.of_block(state.shown, block) for state, block in zip(states, blocks, strict=True)
            ]
        with stopwatch.stage("denoise"):
            rngs = [_restored(state.rng) for state in states]
            shape = (self.block_latents, *render.shape[2:])
            histories = [state.history for state in states if state.history is not None]
            latents = self.sampler.sample(
                reference=torch.cat(references).to(device),
                history=torch.cat(histories) if histories else None,
                condition=torch.cat([mask, render.float()], dim=2),
                text=self._texts_of([state.prompt for state in states]),
                noise=lambda step: torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(device),
            )
        with stopwatch.stage("decode"):
            video, decoder = self._decode(latents, _joined([state.decoder for state in states]))
            frames_u8 = frames_from(video)  # [B, T, H, W, 3]
            if self._pastes_renders:
                frames_u8 = np.stack(
                    [
                        paste_renders(frames, condition.render_u8, condition.is_rendered)
                        for frames, condition in zip(frames_u8, conditions, strict=True)
                    ]
                )
        check_finite(transformer=latents, codec=video)
        kept = num_remembered(self.codec)
        return [
            (
                frames_u8[i],
                StarState(
                    reference=state.reference,
                    prompt=state.prompt,
                    rng=rngs[i].get_state(),
                    shown=np.concatenate([state.shown, blocks[i]])[-kept:],
                    history=latents[i : i + 1],
                    encoder=_part(encoder, i),
                    decoder=_part(decoder, i),
                ),
            )
            for i, state in enumerate(states)
        ]

    def _encode(self, video: Tensor, state: CodecState | None) -> tuple[Tensor, CodecState]:
        """The renders of a block; with low memory, a latent at a time."""
        if not self._low_memory:
            return self.codec.encode_chunk(video, state)
        pieces, start = [], 0
        while start < video.shape[1]:
            stop = start + (1 if state is None else TEMPORAL_STRIDE)
            latents, state = self.codec.encode_complete(video[:, start:stop], state)
            pieces.append(latents)
            start = stop
        assert state is not None, "a block has at least one frame"
        pieces.append(self.codec.finish(state).to(video.dtype))
        return torch.cat(pieces, dim=1)[:, -self.block_latents :], state  # a latent before those was provisional

    def _decode(self, latents: Tensor, state: CodecState | None) -> tuple[Tensor, CodecState]:
        """The frames of a block; with low memory, a latent at a time."""
        pieces = []
        for chunk in latents.split(1 if self._low_memory else self.block_latents, dim=1):
            video, state = self.codec.decode_chunk(chunk, state)
            pieces.append(video)
        assert state is not None, "a block has at least one latent"
        return torch.cat(pieces, dim=1), state

    def _latents_of(self, reference: Reference) -> ReferenceLatents:
        """Latents of a clip, shared by all worlds made of it while it lives."""
        self._references = [(ref, latents) for ref, latents in self._references if ref() is not None]
        for ref, latents in self._references:
            if ref() is reference:
                return latents
        with self._naming_what_is_too_big(1, *reference.size_px):
            latents = ReferenceLatents.of(
                reference,
                self.codec,
                codec_identity=self._codec_identity,
                chunk_latents=1 if self._low_memory else ENCODED_AT_ONCE,
                progress=self.progress,
            )
        self._references.append((weakref.ref(reference), latents))
        return latents

    @torch.inference_mode()
    def _text(self, prompt: str) -> TextKeys:
        """Keys and values of one prompt. B = 1"""
        if prompt not in self._texts:
            embedding = self.text_encoder.encode(prompt)[None].to(self.sampler.transformer.device)
            self._texts[prompt] = self.sampler.transformer.text_keys(embedding)
            if len(self._texts) > MAX_PROMPTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(prompt)
        return self._texts[prompt]

    def _texts_of(self, prompts: list[str]) -> TextKeys:
        """Keys and values of all worlds' prompts."""
        texts = [self._text(prompt) for prompt in prompts]
        if len(set(prompts)) == 1:
            repeated = (len(prompts), -1, -1, -1)
            return TextKeys([k.expand(repeated) for k in texts[0].keys], [v.expand(repeated) for v in texts[0].values])
        keys = zip(*(text.keys for text in texts), strict=True)
        values = zip(*(text.values for text in texts), strict=True)
        return TextKeys([torch.cat(layer) for layer in keys], [torch.cat(layer) for layer in values])

    def _naming_what_is_too_big(self, num_worlds: int, height_px: int, width_px: int) -> AbstractContextManager[None]:
        """Turn a device's refusals into one line with what would help."""
        device = self.sampler.transformer.device
        return naming_what_is_too_big(device, num_worlds, (height_px, width_px), self._hints(num_worlds))

    def _hints(self, num_worlds: int) -> list[str]:
        """What would need less memory, best first."""
        hints = ["a smaller size"]
        if num_worlds > 1:
            hints.insert(0, "fewer worlds at once")
        if not self._low_memory:
            hints.insert(0, "low_memory=True")
        if self.block_latents > 1:
            hints.append("block_latents=1")
        return hints


def check_size(height_px: int, width_px: int) -> None:
    """Frames must be whole tokens.

    Raises:
        InputError: names the nearest size that is.
    """
    check_whole_tokens(height_px, width_px, PIXELS_PER_TOKEN)


def identity_of(*tensors: Tensor) -> str:
    """A digest of weights and their precision."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _joined(states: Sequence[CodecState | None]) -> CodecState | None:
    """States of single streams as one of a batch."""
    if states[0] is None or len(states) == 1:
        return states[0]
    return {name: torch.cat([state[name] for state in states if state is not None]) for name in states[0]}


def _part(state: CodecState, i: int) -> CodecState:
    return {name: tensor[i : i + 1] for name, tensor in state.items()}


def _restored(state: Tensor) -> torch.Generator:
    rng = torch.Generator()
    rng.set_state(state)
    return rng
