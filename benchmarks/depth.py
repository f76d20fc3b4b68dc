"""Made-up depth: how well the shipped network guesses it in worlds it was never trained on, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Result, median_ms, reported, show
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators.warp import inpaint
from inspatio_sim.geometry.completion import (
    SHIPPED_NETWORK,
    CompleteDepth,
    push_pull,
    shipped_completion,
)
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction.one_view.layout import LayoutReconstructor
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.star.views import target_view

SEEDS = range(900_000, 900_032)  # no training uses them
STYLES: tuple[Style, ...] = ("synthetic", "photo")
NUM_FRAMES, FPS = 8, 2.5  # of a clip: few, far apart
NEAR_PX = 8  # "next to known pixels"
BLOCK_FRAMES = 12
SIZE_PX = (96, 160)
TYPICAL_M = 3.0  # given where nothing is known; taken out again


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One clip: the target's frames, their true depth, and which of it the reference had shown."""

    rgb_u8: NDArray[np.uint8]  # [T, H, W, 3]
    true_m: NDArray[np.float32]  # 0 = sky. [T, H, W]
    render_u8: NDArray[np.uint8]  # [T, H, W, 3]
    is_rendered: NDArray[np.bool_]  # [T, H, W]
    intrinsics: Intrinsics

    @property
    def known_m(self) -> NDArray[np.float32]:
        return np.where(self.is_rendered, self.true_m, np.float32(0))

    @property
    def is_asked(self) -> NDArray[np.bool_]:
        """Pixels that have a true depth, which is not known."""
        return ~self.is_rendered & (self.true_m > 0)

    @property
    def is_near(self) -> NDArray[np.bool_]:
        """Pixels at most `NEAR_PX` away from a known one."""
        away_px = [cv2.distanceTransform((known_m == 0).astype(np.uint8), cv2.DIST_L2, 5) for known_m in self.known_m]
        return np.stack(away_px) <= NEAR_PX


def held_out(seeds: Sequence[int]) -> list[HeldOut]:
    """Clips of both styles for each seed."""
    made = []
    for seed in seeds:
        for style in STYLES:
            config = ProceduralConfig(seed=seed, style=style, num_frames=NUM_FRAMES, fps=FPS, size_px=SIZE_PX, length=1)
            sample = ProceduralClips(config)[0]
            view = target_view(sample)
            made.append(
                HeldOut(
                    rgb_u8=sample.target_u8,
                    true_m=sample.target_depth_m,
                    render_u8=view.render_u8,
                    is_rendered=view.is_rendered,
                    intrinsics=sample.intrinsics,
                )
            )
    return made


def measure(seeds: Sequence[int] = SEEDS) -> list[Result]:
    network = shipped_completion()
    clips = held_out(seeds)
    size_mb = SHIPPED_NETWORK.stat().st_size / 1e6
    return [
        *anchored(clips, network),
        *alone(clips, network),
        *cost(network),
        Result(name="weights", value=size_mb, unit="MB", floor=5, better="lower"),
    ]


def anchored(clips: Sequence[HeldOut], network: CompleteDepth) -> list[Result]:
    """Errors on pixels the reference never showed, the others being known."""
    smeared = [
        np.stack([inpaint(*frame) for frame in zip(clip.render_u8, ~clip.is_rendered, strict=True)]) for clip in clips
    ]
    pictures = [clip.rgb_u8 for clip in clips]
    by_network = _anchored_errors(clips, pictures, network)
    by_push_pull = _anchored_errors(clips, pictures, push_pull)
    by_smears = _anchored_errors(clips, smeared, network)
    name = "median depth error, unknown"
    near = f"{name}, within {NEAR_PX} px of known"
    return [
        Result(name=near, value=by_network[0], unit="%", floor=8, better="lower"),
        reported(f"{near}: push-pull", by_push_pull[0], "%"),
        reported(f"{near}: inpainted", by_smears[0], "%"),
        reported(f"{name}, anywhere", by_network[1], "%"),
        reported(f"{name}, anywhere: push-pull", by_push_pull[1], "%"),
        reported(f"{name}, anywhere: inpainted", by_smears[1], "%"),
    ]


def _anchored_errors(
    clips: Sequence[HeldOut], pictures: Sequence[NDArray[np.uint8]], complete: CompleteDepth
) -> tuple[float, float]:
    """Medians in per cent: next to known pixels, and anywhere."""
    near, anywhere = [], []
    for clip, rgb_u8 in zip(clips, pictures, strict=True):
        completed_m = complete(rgb_u8, clip.known_m, TYPICAL_M)
        error = np.abs(completed_m / np.where(clip.true_m > 0, clip.true_m, 1) - 1)
        near.append(error[clip.is_asked & clip.is_near])
        anywhere.append(error[clip.is_asked & clip.is_rendered.any(axis=(1, 2), keepdims=True)])
    return 100 * float(np.median(np.concatenate(near))), 100 * float(np.median(np.concatenate(anywhere)))


def alone(clips: Sequence[HeldOut], network: CompleteDepth) -> list[Result]:
    """Errors where nothing at all is known, each picture's scale aligned by the median ratio."""
    by_network, by_layout = [], []
    for clip in clips:
        guessed_m = network(clip.rgb_u8, np.zeros_like(clip.true_m), TYPICAL_M)
        for rgb_u8, true_m, frame_m in zip(clip.rgb_u8, clip.true_m, guessed_m, strict=True):
            one = Clip(frames_u8=rgb_u8[None], fps=1.0, source="held out", intrinsics=clip.intrinsics)
            by_network.append(_aligned_error(frame_m, true_m))
            by_layout.append(_aligned_error(LayoutReconstructor().reconstruct(one).depth_units[0], true_m))
    name = "median depth error, nothing known"
    return [
        Result(name=name, value=100 * float(np.median(np.concatenate(by_network))), unit="%", floor=20, better="lower"),
        reported(f"{name}: layout", 100 * float(np.median(np.concatenate(by_layout))), "%"),
    ]


def _aligned_error(depth: NDArray[np.float32], true_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Relative errors of a picture's pixels, after the best common factor. [N]"""
    ratio = depth[true_m > 0] / true_m[true_m > 0]
    return np.abs(ratio / np.median(ratio) - 1)


def cost(network: CompleteDepth) -> list[Result]:
    """A block of frames at the size of `tiny`, a part of each unknown; one thread."""
    rng = np.random.default_rng(0)
    rgb_u8 = rng.integers(0, 256, (BLOCK_FRAMES, *SIZE_PX, 3), dtype=np.uint8)
    known_m = np.ones((BLOCK_FRAMES, *SIZE_PX), np.float32)
    known_m[:, :, 100:] = 0
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        per_frame_ms = median_ms(lambda: network(rgb_u8, known_m, TYPICAL_M)) / BLOCK_FRAMES
    finally:
        torch.set_num_threads(num_threads)
    name = f"network, one {SIZE_PX[0]}x{SIZE_PX[1]} frame of a block of {BLOCK_FRAMES}, one thread"
    return [Result(name=name, value=per_frame_ms, unit="ms", floor=10, better="lower")]


def results() -> list[dict[str, Any]]:
    """Everything above, as rows for other benchmarks."""
    return [asdict(result) for result in measure()]


def _seeds(text: str) -> range:
    start, separator, stop = text.partition(":")
    if not (separator and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise InputError(f"--seeds {text}: want FIRST:END such as 900000:900032")
    return range(int(start), int(stop))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    parser.add_argument(
        "--seeds", default=f"{SEEDS.start}:{SEEDS.stop}", help="worlds, FIRST:END (default %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        show("depth", measure(_seeds(arguments.seeds)), as_json=arguments.json, seeds=arguments.seeds)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
