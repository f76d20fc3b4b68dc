"""What a run of the frame generator's training is made of, and the runs that there are: `tiny`, `test`, `worldfm-xl`.

A run is a Python function from a stage's name to its config; `--set` changes single fields of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from inspatio_sim.codecs.tiny_network import TinyConfig, tiny_narrow
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.frame_config import FrameConfig, frame_tiny, frame_xl
from inspatio_sim.latents import SPATIAL_STRIDE
from inspatio_sim.training.engine.trainer import AdamConfig, TrainerConfig
from inspatio_sim.training.frame.data import FrameDataConfig
from inspatio_sim.training.frame.diffusion import DiffusionConfig
from inspatio_sim.training.frame.stages import DistillConfig

FrameStage = Literal["pretrain", "control", "distill", "distill-one"]
SD_CHANNELS = 4  # of the published image codec's latents
ONE_STEP = (999,)


@dataclass(frozen=True, kw_only=True)
class FrameRunConfig:
    """Everything that decides what one stage of a run becomes."""

    name: str
    folder: Path  # of the run; each stage writes to folder/STAGE
    frame: FrameConfig
    codec: TinyConfig | None  # single frames of the video codec that ships; None: the published image codec
    latent_scale: float  # on the codec's latents, so that their standard deviation is about 1
    data: FrameDataConfig
    trainer: TrainerConfig  # of the stage asked for
    adam: AdamConfig  # of the stage asked for; distillation has its own
    seed: int = 0  # of weights that begin random
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory, a third more work
    student: Literal["control", "distill", "distill-one"] = "distill"  # the stage whose result `frame/ship` copies
    compile: bool = False  # let torch.compile make the blocks faster, once it has taken minutes; wants a C++ compiler
    random_stand_ins: bool = False  # random networks for codec and stages that were not run: to try the machinery

    def __post_init__(self) -> None:
        channels = self.codec.latent_channels if self.codec else SD_CHANNELS
        if self.frame.in_channels != channels:
            raise InputError(f"frame.in_channels={self.frame.in_channels}: want {channels} for this codec")
        if self.frame.mask_channels != 1:
            raise InputError(f"frame.mask_channels={self.frame.mask_channels}: want 1: the data say what is known")
        if not self.latent_scale > 0:
            raise InputError(f"latent_scale={self.latent_scale}: want more than 0")
        side = SPATIAL_STRIDE * self.frame.patch_size
        if any(size % side or size < side for size in self.data.size_px):
            raise InputError(f"data.size_px={self.data.size_px}: want multiples of {side}")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in latents."""
        return self.data.size_px[0] // SPATIAL_STRIDE, self.data.size_px[1] // SPATIAL_STRIDE


def tiny(stage: str) -> FrameRunConfig:
    """The weights that ship with the package: made-up rooms at 96x160 pixels."""
    trainer = TrainerConfig(
        out=Path(), max_steps=4600, batch_size=16, dtype="bfloat16", warmup_updates=100, final_lr=0.02,
        ema_decay=0.998, log_every=20, sample_every=500, checkpoint_every=250,
    )  # fmt: skip
    distill = replace(
        trainer, max_steps=800, batch_size=8, final_lr=1.0, warmup_updates=20, ema_decay=0.98, clip_norm=10.0
    )
    trainers = {
        "pretrain": replace(trainer, max_steps=1200, ema_decay=0.99),  # a short run: a longer average would lag behind
        "distill": distill,
        "distill-one": replace(distill, max_steps=300),
    }
    return FrameRunConfig(
        name="frame-tiny",
        folder=Path("runs/frame-tiny"),
        frame=frame_tiny(),
        codec=tiny_narrow(),
        latent_scale=1.4,
        data=FrameDataConfig(fps=1.5),
        trainer=trainers.get(stage, trainer),
        adam=AdamConfig(lr=1e-3, betas=(0.9, 0.95)),
        diffusion=_law_of(stage),
        distill=DistillConfig(
            steps=_steps_of(stage),
            regression_weight=0.0,  # with it what nobody saw stays as blurred as it was
            student=AdamConfig(lr=2e-4, betas=(0.0, 0.999)),
            critic=AdamConfig(lr=4e-4, betas=(0.0, 0.999)),
        ),
    )


def test(stage: str) -> FrameRunConfig:
    """As small as everything can be: tries the machinery in seconds, learns nothing."""
    codec = TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), latent_channels=8, time_alignment="causal")
    return FrameRunConfig(
        name="frame-test",
        folder=Path("runs/frame-test"),
        frame=replace(frame_tiny(), input_size=6, in_channels=8, hidden_size=32, depth=2, num_heads=2),
        codec=codec,
        latent_scale=1.0,
        data=FrameDataConfig(clips_per_style=2, frames_per_clip=2, size_px=(32, 48), workers=0),
        trainer=TrainerConfig(out=Path(), max_steps=2, batch_size=2, log_every=1, sample_every=2),
        adam=AdamConfig(lr=1e-3),
        diffusion=_law_of(stage),
        distill=DistillConfig(
            steps=_steps_of(stage), critic_updates=1, student=AdamConfig(lr=1e-4), critic=AdamConfig(lr=1e-4)
        ),
        random_stand_ins=True,
    )


def worldfm_xl(stage: str) -> FrameRunConfig:
    """The published size at 512x512 pixels, with a mask channel, on a cluster of 64 GPUs."""
    trainer = TrainerConfig(
        out=Path(), max_steps=50_000, batch_size=8, dtype="bfloat16", warmup_updates=1000, ema_decay=0.9999,
        log_every=10, sample_every=1000, checkpoint_every=1000,
    )  # fmt: skip
    distill = replace(trainer, max_steps=10_000, warmup_updates=0, ema_decay=0.99, clip_norm=10.0)
    trainers = {
        "pretrain": replace(trainer, max_steps=200_000, batch_size=16),
        "distill": distill,
        "distill-one": replace(distill, max_steps=5000),
    }
    return FrameRunConfig(
        name="worldfm-xl",
        folder=Path("runs/worldfm-xl"),
        frame=replace(frame_xl(), mask_channels=1, learns_sigma=False, has_caption=False),
        codec=None,
        latent_scale=0.13025,
        data=FrameDataConfig(clips_per_style=2000, size_px=(512, 512), workers=16),  # 84 GB on the disk
        trainer=trainers.get(stage, trainer),
        adam=AdamConfig(lr=1e-4, weight_decay=0.0),
        diffusion=_law_of(stage),
        distill=DistillConfig(
            steps=_steps_of(stage),
            student=AdamConfig(lr=5e-6, betas=(0.0, 0.999)),
            critic=AdamConfig(lr=1e-5, betas=(0.0, 0.999)),
        ),
        checkpoint_activations=True,
    )


CONFIGS: dict[str, Callable[[str], FrameRunConfig]] = {"tiny": tiny, "test": test, "worldfm-xl": worldfm_xl}


def _law_of(stage: str) -> DiffusionConfig:
    """Images by themselves are made in many steps."""
    return DiffusionConfig(few_step_share=0.0) if stage == "pretrain" else DiffusionConfig()


def _steps_of(stage: str) -> tuple[int, ...]:
    return ONE_STEP if stage == "distill-one" else DistillConfig().steps
