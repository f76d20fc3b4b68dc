"""The depth network as the trainer sees it: pictures of made-up worlds, hidden depth, one loss.

Half of the pictures are shown with the depth that the other camera of their clip knows of, as in a world that is
being explored; the others are hidden at random, a part of them wholly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.geometry.depth_network import DepthNetwork, DepthNetworkConfig
from inspatio_sim.pictures import colour_depth
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.data.target_view import target_view
from inspatio_sim.training.depth.losses import depth_loss, hide
from inspatio_sim.training.engine.iteration import Iteration, shuffled
from inspatio_sim.training.engine.trainer import AdamConfig, StageDefaults, Trained

STYLES: tuple[Style, ...] = ("synthetic", "photo")
SKY_M = 60.0  # depth taught where a ray meets nothing
SHOWN = 4  # pictures on a sample sheet


@dataclass(frozen=True, kw_only=True)
class DepthStageConfig:
    """What the depth network learns from, and how."""

    network: DepthNetworkConfig = field(default_factory=DepthNetworkConfig)
    adam: AdamConfig = field(default_factory=lambda: AdamConfig(lr=2e-3))
    seed: int = 0
    clips_per_style: int = 1000
    frames_per_clip: int = 8  # of each of the two cameras
    fps: float = 2.5  # few, so that the frames of a clip differ
    size_px: tuple[int, int] = (96, 160)  # height and width
    rendered_share: float = 0.5  # chance that what is known is what the other camera saw
    crop_share: float = 0.5  # chance of a cut-out, as of a longer lens
    min_crop: float = 0.55  # side of the smallest cut-out
    known_noise: float = 0.01  # standard deviation of a factor on the known depth of each pixel
    blurred_share: float = 0.3  # chance that what is unknown is blurred, as a generator may leave it

    def __post_init__(self) -> None:
        for name in ("clips_per_style", "frames_per_clip"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: want at least 1")
        for name in ("rendered_share", "crop_share", "known_noise", "blurred_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: want 0 to 1")
        if not 0 < self.min_crop <= 1:
            raise InputError(f"min_crop={self.min_crop}: want more than 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class DepthBatch:
    """Pictures, their depth, and what of it is shown to the network."""

    rgb: Tensor  # in [-1, 1]. [B, 3, H, W]
    true_m: Tensor  # [B, 1, H, W]
    known_m: Tensor  # 0 = unknown. [B, 1, H, W]


class DepthPictures:
    """Pictures of made-up clips, all in memory, made worse and hidden anew every time they are drawn.

    Filming them takes minutes at full size.
    """

    def __init__(self, config: DepthStageConfig, progress: Progress | None = None) -> None:
        self.config = config
        per_clip = 2 * config.frames_per_clip
        num_clips = len(STYLES) * config.clips_per_style
        shape = (num_clips * per_clip, *config.size_px)
        self.rgb_u8 = np.empty((*shape, 3), np.uint8)
        self.depth_m = np.empty(shape, np.float16)
        self.is_rendered = np.empty(shape, np.bool_)
        for number, sample in enumerate(_clips(config)):
            rows = slice(number * per_clip, (number + 1) * per_clip)
            seen = [target_view(way).is_rendered for way in (sample, _swapped(sample))]
            self.rgb_u8[rows] = np.concatenate([sample.target_u8, sample.reference_u8])
            self.depth_m[rows] = np.concatenate([sample.target_depth_m, sample.reference_depth_m])
            self.is_rendered[rows] = np.concatenate(seen)
            if progress:
                progress("filming clips", (number + 1) / num_clips)

    def __len__(self) -> int:
        return len(self.rgb_u8)

    def __call__(self, samples: list[int]) -> DepthBatch:
        drawn = [self._draw(sample) for sample in samples]
        rgb, true_m, known_m = (torch.stack(tensors) for tensors in zip(*drawn, strict=True))
        return DepthBatch(rgb=rgb, true_m=true_m, known_m=known_m)

    def _draw(self, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """One picture: [3, H, W], [1, H, W], [1, H, W]."""
        config = self.config
        rng = np.random.default_rng([config.seed, sample])
        i = shuffled(sample, len(self), config.seed)
        rgb_u8, depth_m, is_seen = self._cut_out(i, rng)
        true_m = np.where(depth_m > 0, depth_m, np.float32(SKY_M))
        if rng.random() < config.rendered_share:
            known_m = torch.from_numpy(np.where(is_seen, depth_m, 0))[None]
        else:
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            known_m = hide(torch.from_numpy(depth_m)[None, None], generator)[0]
        noise = np.exp(config.known_noise * rng.standard_normal(depth_m.shape, dtype=np.float32))
        rgb = _worse(rgb_u8, rng)
        if rng.random() < config.blurred_share:
            blurred = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.7, 2.5)))
            rgb = np.where(known_m[0, ..., None].numpy() > 0, rgb, blurred)
        return (
            torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))),
            torch.from_numpy(true_m)[None],
            known_m * torch.from_numpy(noise),
        )

    def _cut_out(
        self, i: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        """A picture, perhaps a part of it enlarged, perhaps mirrored."""
        height_px, width_px = self.config.size_px
        parts = [self.rgb_u8[i], self.depth_m[i].astype(np.float32), self.is_rendered[i].view(np.uint8)]
        if rng.random() < self.config.crop_share:
            side = rng.uniform(self.config.min_crop, 1)
            rows, columns = max(1, round(side * height_px)), max(1, round(side * width_px))
            y, x = int(rng.integers(height_px - rows + 1)), int(rng.integers(width_px - columns + 1))
            ways = (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_NEAREST)
            parts = [
                cv2.resize(part[y : y + rows, x : x + columns], (width_px, height_px), interpolation=way)
                for part, way in zip(parts, ways, strict=True)
            ]
        if rng.random() < 0.5:
            parts = [np.ascontiguousarray(part[:, ::-1]) for part in parts]
        rgb_u8, depth_m, is_seen = parts
        return rgb_u8, depth_m, is_seen > 0


def new_depth_network(config: DepthStageConfig) -> DepthNetwork:
    """A network to train: the same weights for the same config; it begins as push-pull completion."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return DepthNetwork(config.network)


class DepthStage(StageDefaults):
    """The depth network learns to say what was hidden from it."""

    def __init__(self, network: DepthNetwork, pictures: DepthPictures, *, adam: AdamConfig) -> None:
        self.network, self.pictures, self.adam = network, pictures, adam

    def modules(self) -> Mapping[str, Trained]:
        return {"depth": Trained(module=self.network, is_averaged=True)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.adam.make(self.network)}

    def step(self, step: Iteration) -> None:
        for batch in step.update("adam", self.pictures):
            rgb, true_m, known_m = (x.to(step.device) for x in (batch.data.rgb, batch.data.true_m, batch.data.known_m))
            loss = depth_loss(self.network(rgb, known_m), true_m, known_m)
            step.backward(loss)
            step.log(loss=loss)

    @torch.no_grad()
    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        """Rows of picture, known depth, completed depth, true depth."""
        batch = self.pictures(list(range(SHOWN)))
        device = next(self.network.parameters()).device
        completed_m = self.network(batch.rgb.to(device), batch.known_m.to(device)).cpu()
        rows = []
        for rgb, *depths in zip(batch.rgb, batch.known_m, completed_m, batch.true_m, strict=True):
            picture = ((rgb.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
            rows.append(np.concatenate([picture, *(colour_depth(depth[0].numpy()) for depth in depths)], axis=1))
        return {"depth": np.concatenate(rows)}


def _clips(config: DepthStageConfig) -> Iterator[Sample]:
    """Clips of all styles; each style has places of its own."""
    for number, style in enumerate(STYLES):
        clips = ProceduralClips(
            ProceduralConfig(
                seed=len(STYLES) * config.seed + number,
                style=style,
                num_frames=config.frames_per_clip,
                size_px=config.size_px,
                fps=config.fps,
                length=config.clips_per_style,
            )
        )
        for index in range(config.clips_per_style):
            yield clips[index]


def _swapped(sample: Sample) -> Sample:
    """The same clip with its cameras' parts exchanged."""
    return replace(
        sample,
        reference_u8=sample.target_u8,
        target_u8=sample.reference_u8,
        reference_depth_m=sample.target_depth_m,
        target_depth_m=sample.reference_depth_m,
        T_world_reference=sample.T_world_target,
        T_world_target=sample.T_world_reference,
    )


def _worse(rgb_u8: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A picture by another camera in another light: colours, contrast, blur, noise. In [-1, 1]. [H, W, 3]"""
    rgb = rgb_u8[..., rng.permutation(3)] if rng.random() < 0.3 else rgb_u8
    rgb = rgb.astype(np.float32) / 255
    grey = rgb.mean(axis=-1, keepdims=True)
    rgb = grey + np.float32(rng.uniform(0.2, 1.4)) * (rgb - grey)  # saturation
    rgb = rgb * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    mean = rgb.mean()
    rgb = mean * np.float32(rng.uniform(0.6, 1.25)) + np.float32(rng.uniform(0.6, 1.4)) * (rgb - mean)
    rgb = np.clip(rgb, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.4, 1.3)))
    noise = rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.03))
    return (2 * np.clip(rgb + noise, 0, 1) - 1).astype(np.float32)
