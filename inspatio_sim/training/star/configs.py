"""What a run of training is made of, and the runs that there are: `tiny`, `test`, `wan_1_3b`.

A run is a Python function from a stage's name to its config; `--set` changes single fields of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from inspatio_sim.codecs.tiny_network import TinyConfig, taew2_1, tiny_narrow
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.star_config import (
    MASK_CHANNELS,
    PIXELS_PER_TOKEN,
    StarConfig,
    star_1_3b,
    star_tiny,
)
from inspatio_sim.geometry.depth_network import DepthNetworkConfig
from inspatio_sim.latents import BLOCK_LATENTS, SPATIAL_STRIDE, num_frames_of, num_latents_of
from inspatio_sim.training.codec.losses import CodecLossConfig
from inspatio_sim.training.data.procedural import MAX_SEED
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.depth.stage import DepthStageConfig
from inspatio_sim.training.engine.trainer import AdamConfig, TrainerConfig
from inspatio_sim.training.star.stages import DistillConfig, InitConfig
from inspatio_sim.training.star.views import Augment


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The clips of a run."""

    num_clips: int  # encoded, of each style
    kind: Literal["made-up", "re10k", "multicam", "folder"] = "made-up"  # see `training/data`
    folder: Path | None = None  # of clips that are not made up; all styles are taken from it
    seed: int = 0
    num_frames: int = 45  # 12 n - 3: whole chunks
    size_px: tuple[int, int] = (96, 160)  # height and width
    fps: float = 15.0  # of made-up clips
    texture_folder: Path | None = None  # more photographs for the photo style
    workers: int = 2  # processes that film and encode; 0: the training process itself
    clips_per_shard: int = 64
    memory_gb: float = 8.0  # encoded clips are read into memory at once if they take no more than this
    pool_clips: int = 256  # filmed for the codec's crops, half of each style, and kept in memory
    crop_frames: int = 9
    crop_px: tuple[int, int] = (64, 64)
    window_latents: int | None = None  # of the stretches of clips that transformers are trained on; None: whole clips

    def __post_init__(self) -> None:
        at_least = {"num_clips": 1, "clips_per_shard": 1, "pool_clips": 2, "seed": 0, "workers": 0, "memory_gb": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise InputError(f"data.{name}={getattr(self, name)}: want at least {least}")
        if self.seed > MAX_SEED:
            raise InputError(f"data.seed={self.seed}: want at most {MAX_SEED}: higher ones are for evaluation")
        if (
            self.num_frames < 1
            or self.num_frames != num_frames_of(self.num_latents)
            or self.num_latents % BLOCK_LATENTS
        ):
            raise InputError(f"data.num_frames={self.num_frames}: want 12 n - 3, such as 45")
        if any(side < PIXELS_PER_TOKEN or side % PIXELS_PER_TOKEN for side in self.size_px):
            raise InputError(f"data.size_px={self.size_px}: want multiples of {PIXELS_PER_TOKEN}")
        if self.crop_frames > self.num_frames or any(
            crop > side for crop, side in zip(self.crop_px, self.size_px, strict=True)
        ):
            raise InputError(f"crops of {self.crop_frames} frames, {self.crop_px} px: want no more than the clips have")
        window = self.window_latents
        if window is not None and (window % BLOCK_LATENTS or not 0 < window <= self.num_latents):
            raise InputError(
                f"data.window_latents={window}: want a multiple of {BLOCK_LATENTS}, at most {self.num_latents}"
            )

    @property
    def num_latents(self) -> int:
        """Of a clip."""
        return num_latents_of(self.num_frames)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in latents."""
        return self.size_px[0] // SPATIAL_STRIDE, self.size_px[1] // SPATIAL_STRIDE


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what one stage of a run becomes."""

    name: str
    folder: Path  # of the run; each stage writes to folder/STAGE
    star: StarConfig
    codec: TinyConfig
    data: DataConfig
    trainer: TrainerConfig  # of the stage asked for
    adam: AdamConfig  # of the stage asked for; the distillation and the depth network have their own
    seed: int = 0  # of weights that begin random
    shift: float = 5.0  # of the noise schedule
    v2v_styles: tuple[Style, ...] = ("synthetic",)  # of the clips along paths
    augment: Augment = field(default_factory=Augment)
    codec_loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    depth: DepthStageConfig = field(default_factory=DepthStageConfig)  # the depth network, which needs no other stage
    init: InitConfig = field(default_factory=InitConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    t2v_weight: float = 1.0  # lambda of the joint distillation; 0: clips along paths alone
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory, a third more work
    student: Literal["init", "distill"] = "distill"  # the stage whose student `star/ship` copies
    compile: bool = False  # let torch.compile make the blocks faster, once it has taken minutes; wants a C++ compiler
    preset: str | None = None  # of the registry of models: where codec, text encoder and teachers begin
    random_stand_ins: bool = False  # random networks for earlier stages that were not run: to try the machinery

    def __post_init__(self) -> None:
        channels = self.codec.latent_channels
        if (self.star.out_channels, self.star.condition_channels) != (channels, MASK_CHANNELS + channels):
            came = f"star has {self.star.in_channels} channels in and {self.star.out_channels} out"
            raise InputError(f"{came}: want {2 * channels + MASK_CHANNELS} and {channels} for this codec")
        if self.t2v_weight < 0:
            raise InputError(f"t2v_weight={self.t2v_weight}: want 0 or more")


def fitted(star: StarConfig, codec: TinyConfig) -> StarConfig:
    """A transformer's sizes with the channels that a codec's latents want."""
    channels = codec.latent_channels
    return replace(star, in_channels=2 * channels + MASK_CHANNELS, out_channels=channels)


def depth_trainer(trainer: TrainerConfig) -> TrainerConfig:
    """For the depth network, which is small whatever the transformer is."""
    return replace(
        trainer, max_steps=9000, batch_size=16, dtype="bfloat16", warmup_updates=300, final_lr=0.01, ema_decay=0.998
    )


def tiny(stage: str) -> RunConfig:
    """The weights that ship with the package: made-up rooms at 96x160 pixels."""
    trainer = TrainerConfig(
        out=Path(), max_steps=5000, batch_size=8, dtype="bfloat16", warmup_updates=100, final_lr=0.02, ema_decay=0.998,
        log_every=20, sample_every=1000, checkpoint_every=500,
    )  # fmt: skip
    trainers = {
        "codec": replace(trainer, max_steps=1),  # being linear it begins as good as it gets
        "depth": depth_trainer(trainer),
        "t2v-teacher": replace(trainer, max_steps=2000),
        "init": replace(trainer, max_steps=6500),
        "distill": replace(
            trainer, max_steps=1200, batch_size=4, clip_norm=10.0, final_lr=1.0, warmup_updates=20, ema_decay=0.98
        ),
    }
    return RunConfig(
        name="tiny",
        folder=Path("runs/tiny"),
        star=fitted(star_tiny(), tiny_narrow()),
        codec=tiny_narrow(),
        data=DataConfig(num_clips=640, pool_clips=520, window_latents=6),
        trainer=trainers.get(stage, trainer),
        adam=AdamConfig(lr=1e-6) if stage == "codec" else AdamConfig(lr=1e-3, betas=(0.9, 0.95)),
        v2v_styles=("synthetic", "photo"),
        student="init",  # distilled by a teacher this small it gains on Frechet distance, but shows its tokens' borders
        depth=DepthStageConfig(adam=AdamConfig(lr=1.5e-3)),
        init=InitConfig(own_history_from=3000),
        distill=DistillConfig(
            student=AdamConfig(lr=5e-5, betas=(0.0, 0.999)), critic=AdamConfig(lr=5e-5, betas=(0.0, 0.999))
        ),
    )


def test(stage: str) -> RunConfig:
    """As small as everything can be: tries the machinery in seconds, learns nothing."""
    codec = TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), latent_channels=8, time_alignment="causal")
    star = StarConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=16, text_len=4, freq_dim=16)
    return RunConfig(
        name="test",
        folder=Path("runs/test"),
        star=fitted(star, codec),
        codec=codec,
        data=DataConfig(
            num_clips=4, num_frames=21, size_px=(32, 48), workers=0, pool_clips=2, crop_frames=5, crop_px=(32, 32),
            clips_per_shard=2,
        ),
        trainer=TrainerConfig(out=Path(), max_steps=2, batch_size=1, log_every=1, sample_every=2),
        adam=AdamConfig(lr=1e-3),
        depth=DepthStageConfig(
            network=DepthNetworkConfig(widths=(8, 8, 16)), clips_per_style=2, frames_per_clip=2, size_px=(24, 40)
        ),
        distill=DistillConfig(critic_updates=1, student=AdamConfig(lr=1e-4), critic=AdamConfig(lr=1e-4)),
        random_stand_ins=True,
    )  # fmt: skip


def wan_1_3b(stage: str) -> RunConfig:
    """Wan2.1 1.3B at 480x832 on a cluster of 64 GPUs: the published recipe's numbers."""
    trainer = TrainerConfig(
        out=Path(), max_steps=20_000, batch_size=1, dtype="bfloat16", warmup_updates=200, log_every=10,
        checkpoint_every=500,
    )  # fmt: skip
    trainers = {
        "depth": depth_trainer(trainer),
        "init": replace(trainer, max_steps=3000),
        "distill": replace(
            trainer, max_steps=1200, clip_norm=10.0, ema_decay=0.99, ema_start=200, warmup_updates=0,
            checkpoint_every=50,
        ),
    }  # fmt: skip
    return RunConfig(
        name="wan_1_3b",
        folder=Path("runs/wan_1_3b"),
        star=fitted(star_1_3b(), taew2_1()),
        codec=taew2_1(),
        data=DataConfig(num_clips=20_000, size_px=(480, 832), workers=16, clips_per_shard=8),
        trainer=trainers.get(stage, trainer),
        adam=AdamConfig(lr=2e-5),
        depth=DepthStageConfig(adam=AdamConfig(lr=1.5e-3)),
        checkpoint_activations=True,
        preset="wan-t2v-1.3b",
    )


CONFIGS: dict[str, Callable[[str], RunConfig]] = {"tiny": tiny, "test": test, "wan_1_3b": wan_1_3b}
