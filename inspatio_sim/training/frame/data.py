"""Samples for the frame generator: a target view, what geometry knows of it, and a reference view.

The anchors are made as `condition.build_condition` makes them while a world runs: the other camera's frame of the
moment is warped into the target view, and where it says nothing, further frames of the clip do as a map would.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.image import ImageCodec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.pixels import video_from
from inspatio_sim.geometry.render import Render
from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.motion.camera import inverse
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.procedural import HELD_OUT_SEED
from inspatio_sim.training.data.variety import Colours
from inspatio_sim.training.depth.stage import SKY_M
from inspatio_sim.training.frame.augment import NONE, FrameAugment, faulty_depth, holes, soft
from inspatio_sim.training.frame.films import CAMERAS, FilmConfig, Films, Frame

MAX_FURTHER = 2  # frames whose points fill what the first one leaves open
MAX_CHOICE = 5  # views of which the best is the reference
SAME_SOURCE, BEST_OF_FEW = 0.4, 0.3  # shares of references: the anchors' source, the best view of a few, else any


@dataclass(frozen=True, kw_only=True)
class FrameDataConfig(FilmConfig):
    """What is filmed, and how samples are cut from it."""

    further: float = 0.6  # chance that further frames fill gaps
    augment: FrameAugment = field(default_factory=FrameAugment)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.further <= 1:
            raise InputError(f"further={self.further}: want 0 to 1")


def held_out(config: FrameDataConfig, *, clips_per_style: int = 8) -> FrameDataConfig:
    """Places that are never trained on, without faults."""
    return replace(config, seed=HELD_OUT_SEED, clips_per_style=clips_per_style, workers=0, augment=NONE)


@dataclass(frozen=True, kw_only=True)
class FrameViews:
    """One sample as pictures. [H, W, 3] each"""

    target_u8: NDArray[np.uint8]
    anchors_u8: NDArray[np.uint8]  # black where nothing is known
    is_known: NDArray[np.bool_]  # [H, W]
    reference_u8: NDArray[np.uint8]  # black if there is none
    has_reference: bool


@dataclass(frozen=True, kw_only=True)
class FrameBatch:
    """Scaled latents; of anchors and reference with a mask channel in [-1, 1] after them. float32."""

    target: Tensor  # [B, C, h, w]
    anchors: Tensor  # [B, C + 1, h, w]
    reference: Tensor  # [B, C + 1, h, w]


class FrameSamples:
    """Samples by number: the same number gives the same sample, whatever the batch."""

    def __init__(
        self,
        config: FrameDataConfig,
        codec: ImageCodec,
        progress: Progress | None = None,
        *,
        films: Films | None = None,
    ) -> None:
        """Film the clips, which takes minutes at full size.

        Args:
            config: what to film, and what to make of it.
            codec: pictures to latents.
            progress: told the share filmed.
            films: of the same config, if they are there already.
        """
        if any(side % codec.spatial_stride for side in config.size_px):
            raise InputError(f"size_px={config.size_px}: want multiples of {codec.spatial_stride}")
        self.config, self.codec = config, codec
        self.films = films or Films(config, progress)

    def __call__(self, samples: list[int]) -> FrameBatch:
        parts = [self._encoded(self.views(sample)) for sample in samples]
        target, anchors, reference = (torch.stack(part) for part in zip(*parts, strict=True))
        return FrameBatch(target=target, anchors=anchors, reference=reference)

    def views(self, sample: int) -> FrameViews:
        """One sample before it is encoded."""
        augment = self.config.augment
        rng = np.random.default_rng([self.config.seed, sample])
        faults = np.random.default_rng([self.config.seed, sample, 1])  # apart, so that faults choose no other views
        clip = int(rng.integers(len(self.films)))
        first_moment = min(1, self.config.frames_per_clip - 1)  # the cameras of a clip begin in the same place
        camera, moment = int(rng.integers(CAMERAS)), int(rng.integers(first_moment, self.config.frames_per_clip))
        target, source = (camera, moment), (CAMERAS - 1 - camera, moment)
        others = [frame for frame in self.films.frames if frame not in (target, source)]
        further = self._further(others, rng)
        reference = self._reference(clip, target, source, others, rng)
        is_mirrored, is_recoloured, is_view_unknown, is_reference_black, is_soft = faults.random(5) < (
            augment.mirrored,
            augment.recoloured,
            augment.unknown_view,
            augment.no_reference,
            augment.soft_reference,
        )
        anchors_u8, is_known = self._anchors(clip, target, [source, *further], faults)
        if is_view_unknown:
            is_known = np.zeros_like(is_known)
        target_u8, reference_u8 = (self.films.rgb_u8[(clip, *frame)] for frame in (target, reference))
        if is_soft:
            reference_u8 = soft(reference_u8, faults)
        pictures_u8 = np.stack([target_u8, anchors_u8, reference_u8])
        if is_recoloured:
            pictures_u8 = Colours.draw(faults).of(pictures_u8)
        pictures_u8[1, ~is_known] = 0
        if is_reference_black:
            pictures_u8[2] = 0
        if is_mirrored:
            pictures_u8, is_known = pictures_u8[:, :, ::-1], is_known[:, ::-1]
        target_u8, anchors_u8, reference_u8 = pictures_u8
        return FrameViews(
            target_u8=target_u8,
            anchors_u8=anchors_u8,
            is_known=is_known,
            reference_u8=reference_u8,
            has_reference=not is_reference_black,
        )

    def _encoded(self, views: FrameViews) -> tuple[Tensor, Tensor, Tensor]:
        """Target [C, h, w], anchors and reference [C + 1, h, w]. Alone, so that no bit depends on the batch."""
        pictures_u8 = np.stack([views.target_u8, views.anchors_u8, views.reference_u8])
        target, anchors, reference = self.codec.encode(video_from(pictures_u8)).float()
        known = mask_channel(views.is_known, self.codec.spatial_stride).to(target)
        given = torch.full_like(known, 1 if views.has_reference else -1)
        return target, torch.cat([anchors, known]), torch.cat([reference, given])

    def _further(self, others: list[Frame], rng: np.random.Generator) -> list[Frame]:
        has_further, number = rng.random() < self.config.further, int(rng.integers(1, MAX_FURTHER + 1))
        chosen = rng.permutation(len(others))[: number if has_further else 0]
        return [others[i] for i in chosen]

    def _reference(
        self, clip: int, target: Frame, source: Frame, others: list[Frame], rng: np.random.Generator
    ) -> Frame:
        """The frame that is shown whole."""
        frames = [source, *others]
        way, number = rng.random(), int(rng.integers(2, MAX_CHOICE + 1))
        chosen = rng.permutation(len(frames))[:number]
        if way < SAME_SOURCE:
            return source
        if way < SAME_SOURCE + BEST_OF_FEW:
            seen = self.films.shares_seen(clip, target, [frames[i] for i in chosen])
            return frames[chosen[np.argmax(seen)]]
        return frames[chosen[0]]

    def _anchors(
        self, clip: int, target: Frame, sources: list[Frame], faults: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """What the sources show of the target, and where that is. [H, W, 3], [H, W]"""
        augment = self.config.augment
        is_sky_known = faults.random() < augment.known_sky
        first, *further = (self._warped(clip, source, target, is_sky_known, faults) for source in sources)
        image_u8, is_known = first.rgb_u8, first.is_known
        if further:
            is_known = self._with_holes(is_known, faults)
            nearest_m = np.where(is_known, np.float32(0), np.float32(np.inf))
            for render in further:
                is_nearer = render.is_known & (render.depth_m < nearest_m)
                image_u8[is_nearer] = render.rgb_u8[is_nearer]
                nearest_m[is_nearer] = render.depth_m[is_nearer]
            is_known = nearest_m < np.inf
        return image_u8, self._with_holes(is_known, faults)

    def _warped(
        self, clip: int, source: Frame, target: Frame, is_sky_known: bool, faults: np.random.Generator
    ) -> Render:
        """A source, with its faults, in the target's view."""
        augment, films = self.config.augment, self.films
        rgb_u8, depth_m = films.rgb_u8[(clip, *source)], films.depth_m[(clip, *source)].astype(np.float32)
        if is_sky_known:
            depth_m[depth_m == 0] = SKY_M
        is_soft = faults.random() < augment.soft_source
        depth_m = faulty_depth(depth_m, augment, faults)
        poses, intrinsics = films.T_world_camera[clip], films.intrinsics[clip]
        return forward_warp(
            soft(rgb_u8, faults) if is_soft else rgb_u8,
            depth_m,
            intrinsics,
            intrinsics,
            inverse(poses[target]) @ poses[source],
        )

    def _with_holes(self, is_known: NDArray[np.bool_], faults: np.random.Generator) -> NDArray[np.bool_]:
        return is_known & ~holes(is_known.shape, faults) if faults.random() < self.config.augment.holes else is_known


def mask_channel(is_known: NDArray[np.bool_], stride_px: int) -> Tensor:
    """The known share of each latent's pixels, from 0..1 to [-1, 1]. [H, W] -> float32 [1, h, w]"""
    known = torch.from_numpy(np.ascontiguousarray(is_known)).float()[None]
    return torch.nn.functional.avg_pool2d(known, stride_px) * 2 - 1
