"""The motion teacher as a generator of whole clips: many steps, and every frame sees every other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.quality_cases.held_out import HeldOut
from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.blocks.loading import RANDOM_SEED
from inspatio_sim.generators.presets.find import weights_folders
from inspatio_sim.generators.presets.identify import stored_config
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.presets.registry import StarPreset
from inspatio_sim.generators.star.generator import StarGenerator
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.reference_latents import encode_frames
from inspatio_sim.progress import Progress
from inspatio_sim.training.star.flows import Conditions
from inspatio_sim.training.star.trajectories import teacher_trajectory
from inspatio_sim.training.star.views import NONE, encode_sample

TEACHER_FILE = "tiny_teacher.safetensors"
WINDOW_LATENTS = 6  # `tiny`'s data.window_latents
CLIPS_AT_ONCE = 4
EDGE_GREY = 128  # to round float in [-1, 1] to the nearest of 255 levels, as the student does


def load_teacher(
    preset: StarPreset, path: Path | None, folder: Path | None, *, random_weights: bool
) -> StarTransformer:
    """The teacher of a preset, in float32.

    Args:
        preset: whose sizes random weights have.
        path: its file; None looks for it where the preset's weights are.
        folder: of weights, see `weights_folders`.
        random_weights: seeded random numbers instead.

    Raises:
        InputError: there is no such file, or it is no transformer.
        CheckpointMismatch: its tensors are not those its header tells of.
    """
    if random_weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return StarTransformer(preset.star).eval().requires_grad_(False)
    path = path or _find(folder)
    with open_checkpoint(path) as checkpoint:
        config = stored_config(checkpoint)
    if config is None:
        raise InputError(f"{path}: no transformer of known sizes: want a motion teacher written by the trainer")
    with torch.device("meta"):
        teacher = StarTransformer(config)
    load_weights(teacher, path, dtype=torch.float32)
    return teacher.eval().requires_grad_(False)


def _find(folder: Path | None) -> Path:
    folders = weights_folders(folder)
    for place in folders:
        found = sorted(place.glob(f"**/{TEACHER_FILE}"))
        if found:
            return found[0]
    raise InputError(
        f"{folders[0]}: no {TEACHER_FILE}: train one, name it (--teacher FILE), "
        "leave teacher out of --generators, or try the machinery with --random-weights"
    )


@torch.inference_mode()
def film(
    teacher: StarTransformer,
    student: StarGenerator,
    places: Sequence[HeldOut],
    num_euler_steps: int,
    progress: Progress | None = None,
) -> list[NDArray[np.uint8]]:
    """Frames along the whole target path of every place, from what the student gets to see without a map.

    Clips are made in stretches as long as the teacher was trained on; each begins anew.

    Args:
        teacher: float32 weights.
        student: whose codec, prompts and noise schedule are the teacher's too.
        places: all with clips of one length.
        num_euler_steps: of the sampler.
        progress: told the share done.

    Returns:
        For each place [T, H, W, 3]
    """
    device = student.sampler.transformer.device
    teacher = teacher.to(device)
    is_bfloat16 = student.sampler.transformer.dtype == torch.bfloat16
    films = []
    for start in range(0, len(places), CLIPS_AT_ONCE):
        group = places[start : start + CLIPS_AT_ONCE]
        rows = [
            encode_sample(place.sample, student.codec, student.text_encoder, NONE, np.random.default_rng(place.seed))
            for place in group
        ]
        conditions = Conditions(
            text=_stacked(rows, "text", device),
            reference=_stacked(rows, "reference", device),
            view=_stacked(rows, "view", device),
        )
        shape = rows[0]["target"].shape
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(p.seed)) for p in group])
        with torch.autocast(device.type, torch.bfloat16) if is_bfloat16 else nullcontext():
            windows = [
                teacher_trajectory(
                    teacher,
                    conditions.chunk(i, WINDOW_LATENTS),
                    part.to(device),
                    steps=(1000,),
                    schedule=FlowSchedule(student.sampler.config.shift),
                    num_euler_steps=num_euler_steps,
                ).final
                for i, part in enumerate(noise.split(WINDOW_LATENTS, dim=1))
            ]
        films += list(decoded(student, torch.cat(windows, dim=1)))
        if progress:
            progress("teacher", len(films) / len(places))
    return films


@torch.inference_mode()
def through_codec(student: StarGenerator, places: Sequence[HeldOut]) -> list[NDArray[np.uint8]]:
    """The truth, encoded and decoded: what a perfect generator would show. For each place [T, H, W, 3]"""
    films = []
    for place in places:
        latents = encode_frames(place.sample.target_u8, np.arange(place.num_frames), student.codec)
        films += list(decoded(student, latents[None].to(student.sampler.transformer.device)))
    return films


def decoded(student: StarGenerator, latents: Tensor) -> NDArray[np.uint8]:
    """[B, n, C, h, w] -> [B, T, H, W, 3]"""
    video = student.codec.decode(latents).float().mul(127.5).add_(EDGE_GREY).clamp_(0, 255).to(torch.uint8)
    return video.movedim(2, -1).contiguous().cpu().numpy()


def _stacked(rows: Sequence[dict[str, Tensor]], name: str, device: torch.device) -> Tensor:
    return torch.stack([row[name] for row in rows]).to(device)
