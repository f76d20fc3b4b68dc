"""The small network whose features the Fréchet distances are taken of, and how it was trained.

It learned to say of a single frame of a made-up place how far everything is, which words its caption has (layout,
surfaces, things, colours) and which of the two styles it is in. Noise and exposure are a camera's, not a place's:
training adds both at random, so that features hardly depend on them.

python -m benchmarks.quality_cases.features    trains it again and writes features.safetensors beside this file
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality_cases.held_out import STYLES
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig

WEIGHTS = Path(__file__).with_name("features.safetensors")
WIDTHS = (24, 32, 48, 64)
NUM_FEATURES = WIDTHS[-1]
GRID = (2, 3)  # every frame gives the features of so many parts, rows by columns
FRAMES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class FeatureTraining:
    """How the network is trained."""

    seed: int = 800_000  # of the places; those of the benchmark are others
    num_places: int = 1600  # in each style, two frames of each
    num_test_places: int = 200  # in each style, others again
    size_px: tuple[int, int] = (96, 160)
    num_steps: int = 1000
    batch: int = 32
    learning_rate: float = 3e-3
    min_word_share: float = 0.03  # rarer words of the captions are not asked for


class FeatureNetwork(nn.Module):
    """Frames [B, 3, H, W] in [-1, 1] to features [B, 64, H / 16, W / 16]."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width_in, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            )
            for width_in, width in zip(inputs, WIDTHS, strict=True)
        )

    def forward(self, frames: Tensor) -> Tensor:
        for stage in self.stages:
            frames = stage(frames)
        return frames


def load_features(path: Path = WEIGHTS) -> FeatureNetwork:
    """The network with the weights that come with the benchmark."""
    network = FeatureNetwork()
    load_weights(network, path, dtype=torch.float32)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def features_of(network: FeatureNetwork, frames_u8: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of every part of every frame. [T, H, W, 3] -> [6 T, 64]"""
    parts = [
        rearrange(F.adaptive_avg_pool2d(network(_video(some)), GRID), "t d r c -> (t r c) d")
        for some in np.array_split(frames_u8, -(-len(frames_u8) // FRAMES_AT_ONCE))
    ]
    return torch.cat(parts).numpy()


class _Heads(nn.Module):
    """What is asked of the features in training."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(NUM_FEATURES, 1, 1)
        self.words = nn.Linear(NUM_FEATURES, num_words)
        self.style = nn.Linear(NUM_FEATURES, 1)


@dataclass(frozen=True, kw_only=True)
class _Examples:
    frames_u8: NDArray[np.uint8]  # [N, H, W, 3]
    log_depth: Tensor  # of the frame's parts, less the frame's mean; 0 where unknown. [N, H / 16, W / 16]
    has_word: Tensor  # [N, V]
    is_photo: Tensor  # [N]


def train(config: FeatureTraining, progress: Progress | None = None) -> tuple[FeatureNetwork, dict[str, float]]:
    """Train from nothing; the same config gives the same weights on the same machine.

    Returns:
        The network, and how well it does on places that it was not trained on.
    """
    captions, pictures = _film(config, 0, config.num_places, progress)
    test_captions, test_pictures = _film(config, config.num_places, config.num_test_places, progress)
    counts = Counter(word for words in captions for word in words)
    asked = sorted(word for word, count in counts.items() if config.min_word_share < count / len(captions) < 0.97)
    examples, tests = _examples(captions, pictures, asked), _examples(test_captions, test_pictures, asked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network, heads = FeatureNetwork(), _Heads(len(asked))
        _fit(network, heads, examples, config, progress)
    return network.eval(), {"words": float(len(asked)), **_test(network, heads, tests)}


def _film(
    config: FeatureTraining, first: int, count: int, progress: Progress | None
) -> tuple[list[frozenset[str]], list[tuple[NDArray[np.uint8], NDArray[np.float32], bool]]]:
    """Words of the caption, and frame, depth and style; one frame by each camera of every place."""
    captions, pictures = [], []
    for style in STYLES:
        clips = ProceduralClips(
            ProceduralConfig(seed=config.seed, style=style, num_frames=2, size_px=config.size_px, length=first + count)
        )
        for i in range(first, first + count):
            sample = clips[i]
            words = frozenset(re.findall(r"[a-z]+", sample.caption.lower()))
            captions += [words, words]
            pictures.append((sample.reference_u8[0], sample.reference_depth_m[0], style == "photo"))
            pictures.append((sample.target_u8[-1], sample.target_depth_m[-1], style == "photo"))
            if progress and i % 20 == 0:
                progress(f"{count} places, {style}", (i - first + 1) / count)
    return captions, pictures


def _examples(
    captions: Sequence[frozenset[str]],
    pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32], bool]],
    asked: Sequence[str],
) -> _Examples:
    depth_m = torch.from_numpy(np.stack([depth_m for _, depth_m, _ in pictures]))
    is_known = (depth_m > 0).float()
    log_depth = F.avg_pool2d(depth_m.clamp(min=0.1).log() * is_known, 16) / F.avg_pool2d(is_known, 16).clamp(min=1e-3)
    return _Examples(
        frames_u8=np.stack([frame_u8 for frame_u8, _, _ in pictures]),
        log_depth=log_depth - log_depth.mean((1, 2), keepdim=True),
        has_word=torch.tensor([[word in words for word in asked] for words in captions]).float(),
        is_photo=torch.tensor([is_photo for _, _, is_photo in pictures]).float(),
    )


def _fit(
    network: FeatureNetwork,
    heads: _Heads,
    examples: _Examples,
    config: FeatureTraining,
    progress: Progress | None,
) -> None:
    parameters = [*network.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.num_steps)
    rng = np.random.default_rng(config.seed)
    for step in range(config.num_steps):
        chosen = rng.choice(len(examples.frames_u8), config.batch, replace=False)
        frames = _video(examples.frames_u8[chosen])
        gain = torch.from_numpy(np.exp(rng.normal(0, 0.15, (config.batch, 1, 1, 1)))).float()
        noise = torch.from_numpy(rng.uniform(0, 0.03, (config.batch, 1, 1, 1))).float()
        frames = ((frames + 1) * gain - 1 + noise * torch.randn_like(frames)).clamp(-1, 1)
        features = network(frames)
        pooled = features.mean((2, 3))
        depth_loss = (heads.depth(features)[:, 0] - examples.log_depth[chosen]).abs().mean()
        word_loss = F.binary_cross_entropy_with_logits(heads.words(pooled), examples.has_word[chosen])
        style_loss = F.binary_cross_entropy_with_logits(heads.style(pooled)[:, 0], examples.is_photo[chosen])
        optimiser.zero_grad()
        (depth_loss + word_loss + style_loss).backward()
        optimiser.step()
        schedule.step()
        if progress:
            progress("training", (step + 1) / config.num_steps)


@torch.inference_mode()
def _test(network: FeatureNetwork, heads: _Heads, tests: _Examples) -> dict[str, float]:
    some = np.array_split(tests.frames_u8, -(-len(tests.frames_u8) // FRAMES_AT_ONCE))
    features = torch.cat([network.eval()(_video(frames_u8)) for frames_u8 in some])
    pooled = features.mean((2, 3))
    is_right = (heads.words(pooled) > 0) == (tests.has_word > 0.5)
    return {
        "log_depth_error": float((heads.depth(features)[:, 0] - tests.log_depth).abs().mean()),
        "log_depth_spread": float(tests.log_depth.abs().mean()),
        "words_right": float(is_right.float().mean()),
        "words_by_guess": float(torch.maximum(tests.has_word.mean(0), 1 - tests.has_word.mean(0)).mean()),
        "style_right": float(((heads.style(pooled)[:, 0] > 0) == (tests.is_photo > 0.5)).float().mean()),
    }


def _video(frames_u8: NDArray[np.uint8]) -> Tensor:
    """[N, H, W, 3] -> [N, 3, H, W] in [-1, 1]"""
    return torch.from_numpy(np.ascontiguousarray(frames_u8)).movedim(-1, 1).float().div_(127.5).sub_(1)


def save_features(network: FeatureNetwork, path: Path, config: FeatureTraining, tested: dict[str, float]) -> None:
    """Write the weights, with how they came about in the header."""
    tensors = network.state_dict()
    write_safetensors(
        path,
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()},
        tensors.__getitem__,
        {
            "what": "features for the Frechet distances of benchmarks.quality",
            "training": repr(config),
            "tested": ", ".join(f"{name} {value:.4g}" for name, value in tested.items()),
            "licence": "Apache-2.0",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_cases.features", description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help=f"default: {WEIGHTS.name} beside the code")
    options = parser.parse_args()
    config = FeatureTraining()
    with Terminal().progress() as progress:
        network, tested = train(config, progress)
    save_features(network, options.out, config, tested)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")
    for name, value in tested.items():
        print(f"{name:<20} {value:.4g}")


if __name__ == "__main__":
    main()
