"""FrameGenerator: the image student behind the `Generator` protocol, one frame a block, for a batch of worlds at once.

A frame is made of the render at its pose, which is where its geometry comes from (explicit anchors), and of one view
that the world remembers, which is where its look comes from (implicit memory): of the clip, or generated earlier.

Shapes: B worlds of a group, H W pixels, C h w latents.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.image import ImageCodec
from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.paste import close_cracks, paste_renders
from inspatio_sim.generators.blocks.pixels import frames_from, video_from
from inspatio_sim.generators.blocks.refusals import (
    check_finite,
    check_whole_tokens,
    checked_seed,
    naming_what_is_too_big,
)
from inspatio_sim.generators.blocks.stopwatch import Stopwatch
from inspatio_sim.generators.frame.sampler import FrameSampler
from inspatio_sim.generators.frame.view_memory import View, ViewMemory
from inspatio_sim.generators.options import MAX_VIEWS
from inspatio_sim.generators.protocol import Generation, PackedState
from inspatio_sim.kernels import run_chunks
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.progress import Progress
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import Reference


@dataclass(frozen=True, kw_only=True)
class FrameState:
    """What one world's next frame depends on, beside its condition."""

    memory: ViewMemory
    intrinsics: Intrinsics  # of the clip, and of every frame made
    seed: int  # of the noise, the same for every frame: what is made up does not flicker while the camera rests


class FrameGenerator:
    """Generates with a transformer and an image codec; see `load.load_frame` for how they come about."""

    name = "frame"
    first_block_frames = 1
    frames_per_block = 1

    def __init__(
        self,
        sampler: FrameSampler,
        codec: ImageCodec,
        *,
        max_views: int = MAX_VIEWS,
        pastes_renders: bool = False,
        best_size_px: tuple[int, int] = (512, 512),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            sampler: with the transformer.
            codec: images to latents and back.
            max_views: that a world remembers; at most half of them are of the clip.
            pastes_renders: lay what is rendered over what is generated.
            best_size_px: height and width of the frames it was trained on.
            options: what makes this generator again, for saved worlds.
        """
        if type(max_views) is not int or max_views < 2:
            raise InputError(f"max_views={max_views!r}: want a whole number from 2 on")
        self.sampler = sampler
        self.codec = codec
        self.max_views = max_views
        self.best_size_px = best_size_px
        self.memory_plan: Mapping[str, int] = {}
        self.progress: Progress | None = None  # told of work that takes long, such as encoding a clip's views
        self._pastes_renders = pastes_renders
        self._options = dict(options) if options is not None else None
        self._memories: list[tuple[weakref.ref[Reference], ViewMemory]] = []

    @property
    def looks_real(self) -> bool:
        return True

    @property
    def options(self) -> dict[str, Any]:
        if self._options is None:
            raise InputError("this generator was put together by hand: a world of it cannot be saved by name")
        return dict(self._options)

    @property
    def token_px(self) -> int:
        """Frames are whole multiples of this."""
        return self.codec.spatial_stride * self.sampler.network.config.patch_size

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> FrameState:
        """The state of a world that has generated nothing yet; chooses and encodes the clip's views if nobody has."""
        del prompt  # the text attention of the published network is switched off
        check_whole_tokens(*reference.size_px, self.token_px)
        seed = checked_seed(seed)
        return FrameState(memory=self._memory_of(reference), intrinsics=reference.intrinsics, seed=seed)

    @torch.inference_mode()
    def generate(self, conditions: Sequence[Condition], states: Sequence[FrameState]) -> Generation:
        """One frame for each world; see `Generator`."""
        frames: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(states)
        after: list[FrameState] = list(states)
        stopwatch = Stopwatch(self.sampler.network.device)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (condition, _) in enumerate(zip(conditions, states, strict=True)):
            groups.setdefault(condition.render_u8.shape, []).append(i)
        for shape, group in groups.items():
            with self._naming_what_is_too_big(len(group), shape[1:3]):
                made = self._generate_group([conditions[i] for i in group], [states[i] for i in group], stopwatch)
            for i, (frames_u8, state) in zip(group, made, strict=True):
                frames[i], after[i] = frames_u8, state
        return Generation(frames_u8=frames, states=after, seconds=stopwatch.seconds())

    @torch.inference_mode()
    def observe(self, state: FrameState, observation: Observation, reference: Reference) -> FrameState:
        """Remember the frame, where it shows what no remembered view shows."""
        del reference
        depth_m, T_world_camera = observation.depth_m[0], observation.T_world_camera[0]
        if not state.memory.is_novel(depth_m, state.intrinsics, T_world_camera):
            return state
        view = View.of(self._encode(observation.rgb_u8[0]), depth_m, state.intrinsics, T_world_camera)
        return replace(state, memory=state.memory.with_view(view))

    def pack(self, state: FrameState) -> PackedState:
        """A state as arrays: generated views whole, the clip's by their frames, and the seed."""
        memory = {f"memory.{name}": array for name, array in state.memory.pack().items()}
        return {"seed": np.array([state.seed]), **memory}

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> FrameState:
        """The state that `pack` was given."""
        memory = {name.removeprefix("memory."): a for name, a in arrays.items() if name.startswith("memory.")}
        return FrameState(
            memory=ViewMemory.unpack(memory, self._memory_of(reference).views),
            intrinsics=reference.intrinsics,
            seed=int(arrays["seed"][0]),
        )

    def _generate_group(
        self, conditions: list[Condition], states: list[FrameState], stopwatch: Stopwatch
    ) -> list[tuple[NDArray[np.uint8], FrameState]]:
        """Worlds with frames of one size."""
        device = self.sampler.network.device
        with stopwatch.stage("select"):
            views = run_chunks(_select, list(zip(states, conditions, strict=True)))
        with stopwatch.stage("encode"):
            renders_u8, is_rendered = close_cracks(
                np.concatenate([condition.render_u8 for condition in conditions]),
                np.concatenate([condition.is_rendered for condition in conditions]),
            )
            images = video_from(renders_u8).to(device)
            known = torch.from_numpy(is_rendered)[:, None].to(device, torch.float32)
            known = F.avg_pool2d(known, self.codec.spatial_stride).mul_(2).sub_(1)
            anchors = self._with_mask(self.codec.encode(images).float(), known)
            latents_of_views = torch.stack([view.latent for view in views]).to(device)
            reference = self._with_mask(latents_of_views, torch.ones_like(known))
        with stopwatch.stage("denoise"):
            rngs = [torch.Generator().manual_seed(state.seed) for state in states]
            shape = tuple(latents_of_views.shape[1:])
            latents = self.sampler.sample(
                noise=lambda step: torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(device),
                anchors=anchors,
                reference=reference,
            )
        with stopwatch.stage("decode"):
            images = self.codec.decode(latents)
            frames_u8 = frames_from(images)  # [B, H, W, 3]
            if self._pastes_renders:
                frames_u8 = paste_renders(frames_u8, renders_u8, is_rendered)
        check_finite(transformer=latents, codec=images)
        return list(zip(frames_u8[:, None], states, strict=True))

    def _with_mask(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Latents with as many channels of a mask in [-1, 1] behind them as the network wants: none or one."""
        num_channels = self.sampler.network.config.mask_channels
        return torch.cat([latents, mask.expand(-1, num_channels, -1, -1)], dim=1)

    def _memory_of(self, reference: Reference) -> ViewMemory:
        """What a new world remembers: views all along the clip that differ, encoded once for all its worlds."""
        self._memories = [(ref, memory) for ref, memory in self._memories if ref() is not None]
        for ref, memory in self._memories:
            if ref() is reference:
                return memory
        memory, intrinsics = ViewMemory(max_views=self.max_views), reference.intrinsics
        candidates = np.linspace(0, reference.num_frames - 1, min(reference.num_frames, self.max_views // 2))
        for i, frame_idx in enumerate(candidates.astype(int).tolist()):
            depth_m, T_world_camera = reference.depth_m[frame_idx], reference.T_world_camera[frame_idx]
            if memory.is_novel(depth_m, intrinsics, T_world_camera):
                latent = self._encode(reference.frames_u8[frame_idx])
                memory = memory.with_view(View.of(latent, depth_m, intrinsics, T_world_camera, frame_idx))
            if self.progress:
                self.progress("encoding views of the clip", (i + 1) / len(candidates))
        self._memories.append((weakref.ref(reference), memory))
        return memory

    @torch.inference_mode()
    def _encode(self, rgb_u8: NDArray[np.uint8]) -> Tensor:
        """The latent of a frame [H, W, 3]. [C, h, w]"""
        with self._naming_what_is_too_big(1, rgb_u8.shape):
            return self.codec.encode(video_from(rgb_u8)[None].to(self.sampler.network.device))[0]

    def _naming_what_is_too_big(self, num_worlds: int, size_px: tuple[int, ...]) -> AbstractContextManager[None]:
        """Turn a device's refusals into one line with what would help."""
        hints = ["a smaller size"] if num_worlds == 1 else ["fewer worlds at once", "a smaller size"]
        return naming_what_is_too_big(self.sampler.network.device, num_worlds, (size_px[0], size_px[1]), hints)


def _select(state: FrameState, condition: Condition) -> View:
    """The view that shows most of what is rendered.

    Where nothing of that was ever filmed it is a view of the clip: a generated one would hand its faults on from frame
    to frame, and colours would drift away.
    """
    is_made_up = not (condition.known[0] != Known.MADE_UP).any()
    idx = state.memory.select(
        condition.depth_m[0], state.intrinsics, condition.T_world_camera[0], of_reference=is_made_up
    )
    return state.memory.views[idx]
