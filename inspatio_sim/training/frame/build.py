"""From a frame run's config to a stage that can be trained: network, results of earlier stages, data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from inspatio_sim.codecs import TinyCodec
from inspatio_sim.codecs.image import ImageCodec, SingleFrames
from inspatio_sim.codecs.sd_vae import SdVae
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.compiled import compile_blocks
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.registry import preset_by_name
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.iteration import BatchPlan
from inspatio_sim.training.engine.trainer import Stage
from inspatio_sim.training.frame.configs import FrameRunConfig
from inspatio_sim.training.frame.data import FrameDataConfig, FrameSamples, held_out
from inspatio_sim.training.frame.earlier import earlier_frame, found_earlier, frame_from, new_frame, tiny_codec
from inspatio_sim.training.frame.films import Films
from inspatio_sim.training.frame.stages import ControlStage, DistillStage, Frames, PretrainStage, Shown
from inspatio_sim.training.star.build import check_compiler, filled_copy
from inspatio_sim.training.star.sources import Prefetched
from inspatio_sim.training.star.stages import recompute_blocks

logger = logging.getLogger(__name__)

BLOCK_ENTRY_POINTS = ("forward",)
SHOWN = 6  # frames on a sample sheet
SHOWN_CLIPS = 3  # that they are from, of each style
SD_VAE_PRESET = "worldfm-2step"  # of the registry, whose image codec is meant


@dataclass(kw_only=True)
class FrameWorkshop:
    """What stages are built from."""

    config: FrameRunConfig
    ranks: Ranks
    start: Path | None = None  # weights that the trained network begins with, in place of the usual ones
    progress: Progress | None = None

    @property
    def schedule(self) -> DdpmSchedule:
        return DdpmSchedule(self.ranks.device)

    @cached_property
    def codec(self) -> ImageCodec:
        """Frozen; the small one works on the CPU, beside the training."""
        config = self.config
        if config.codec:
            return SingleFrames(TinyCodec(tiny_codec(config)), config.latent_scale)
        return SdVae.from_folder(_published_codec(), device=self.ranks.device)

    def frames(self) -> Frames:
        """Batches of samples; no more clips are filmed than will be seen."""
        config, trainer = self.config, self.config.trainer
        seen = trainer.max_steps * trainer.batch_size * trainer.accumulate * self.ranks.world_size
        data = replace(config.data, clips_per_style=min(config.data.clips_per_style, seen))
        plan = BatchPlan(seed=trainer.seed, batch_size=trainer.batch_size, accumulate=trainer.accumulate)
        samples = FrameSamples(data, self.codec, films=self._films(data))
        return Prefetched(samples, plan, world_size=self.ranks.world_size)

    def _films(self, data: FrameDataConfig) -> Films:
        """In memory where they are few; else on the disk, filmed by one rank while the others wait."""
        if data.num_clips < data.clips_per_part:
            return Films(data, self.progress)
        folder = self.config.folder / "films"
        if self.ranks.is_main:
            Films(data, self.progress, folder=folder)
        self.ranks.wait_long()
        return Films(data, folder=folder)

    def shown(self) -> Shown | None:
        """Held-out frames, if pictures are asked for."""
        if not self.config.trainer.sample_every:
            return None
        samples = FrameSamples(held_out(self.config.data, clips_per_style=SHOWN_CLIPS), self.codec)
        return Shown(codec=self.codec, batch=samples(list(range(SHOWN))))

    def started(self, stage: str, earlier: str | None = None) -> FrameTransformer:
        """The network to train: from a file, else what an earlier stage left, else random."""
        config = self.config
        if self.start:
            return frame_from(config, self.start)
        return earlier_frame(config, earlier) if earlier else new_frame(config, stage)

    def compiled(self, network: FrameTransformer) -> FrameTransformer:
        """A transformer on this rank's device, made faster, in place, if that is asked for."""
        network = network.to(self.ranks.device)
        if self.config.compile:
            check_compiler(self.ranks.device)
            compile_blocks(network, BLOCK_ENTRY_POINTS)
        return network

    def trained(self, network: FrameTransformer) -> FrameTransformer:
        """A transformer made ready for gradients, in place."""
        self.compiled(network)
        if self.config.checkpoint_activations:
            recompute_blocks(network, BLOCK_ENTRY_POINTS)
        return network.requires_grad_(True).train()


def _published_codec() -> Path:
    """The folder of the published models' image codec."""
    preset = preset_by_name(SD_VAE_PRESET)
    wanted = preset.wanted("codec")
    folder = find.find_file(preset, wanted, find.weights_folders())
    if folder is None:
        missing = find.missing_text(wanted, os.environ.get(find.ENVIRONMENT) or "weights")
        raise InputError(f"no image codec: {missing}; and name the folder in {find.ENVIRONMENT}")
    return folder


@dataclass(frozen=True, kw_only=True)
class FrameStageKind:
    """One entry of `FRAME_STAGES`."""

    build: Callable[[FrameWorkshop], Stage]
    needs: tuple[str, ...] = ()  # earlier stages
    begins_with: str | None = None  # that of them which `start` stands in for


def check_frame_stage(stage: str | None) -> str:
    """Refuse what is no stage."""
    if stage not in FRAME_STAGES:
        came = "train frame" if stage is None else f"train frame --stage {stage[:40]}"
        raise InputError(f"{came}: want --stage {'|'.join(FRAME_STAGES)}")
    return stage


def build_frame_stage(stage: str, workshop: FrameWorkshop) -> Stage:
    """A stage that is ready to be trained."""
    for earlier in frame_needs(stage, workshop.start):  # before anything that takes long
        found = found_earlier(workshop.config, earlier)
        if found.kind != "run" and workshop.ranks.is_main:
            logger.warning("%s was not run in %s: in its place %s", earlier, workshop.config.folder, found.shown)
    return FRAME_STAGES[stage].build(workshop)


def frame_needs(stage: str, start: Path | None) -> list[str]:
    """Earlier stages whose results a stage uses."""
    kind = FRAME_STAGES[stage]
    return [name for name in kind.needs if not (start and name == kind.begins_with)]


def pretrain_stage(workshop: FrameWorkshop) -> PretrainStage:
    """Images by themselves, from random weights."""
    config = workshop.config
    return PretrainStage(
        workshop.trained(workshop.started("pretrain")),
        workshop.frames(),
        adam=config.adam,
        schedule=workshop.schedule,
        config=config.diffusion,
        shown=workshop.shown(),
    )


def control_stage(workshop: FrameWorkshop) -> ControlStage:
    """Images from anchors and reference, from the pretrained averages."""
    config = workshop.config
    return ControlStage(
        workshop.trained(workshop.started("control", "pretrain")),
        workshop.frames(),
        adam=config.adam,
        schedule=workshop.schedule,
        config=config.diffusion,
        shown=workshop.shown(),
    )


def distill_stage(workshop: FrameWorkshop) -> DistillStage:
    """A few steps, from the controlled model's averages."""
    return _distillation(workshop, workshop.started("distill", "control"))


def distill_one_stage(workshop: FrameWorkshop) -> DistillStage:
    """One step, from the student of a few."""
    return _distillation(workshop, workshop.started("distill-one", "distill"))


def _distillation(workshop: FrameWorkshop, student: FrameTransformer) -> DistillStage:
    """Against the controlled model; the critic begins as a copy of it."""
    config = workshop.config
    real = earlier_frame(config, "control")
    fake = filled_copy(FrameTransformer(config.frame), real)
    return DistillStage(
        workshop.trained(student),
        real=workshop.compiled(real),
        fake=workshop.trained(fake),
        frames=workshop.frames(),
        schedule=workshop.schedule,
        config=config.diffusion,
        distill=config.distill,
        shown=workshop.shown(),
    )


FRAME_STAGES: dict[str, FrameStageKind] = {
    "pretrain": FrameStageKind(build=pretrain_stage),
    "control": FrameStageKind(build=control_stage, needs=("pretrain",), begins_with="pretrain"),
    "distill": FrameStageKind(build=distill_stage, needs=("control",)),
    "distill-one": FrameStageKind(build=distill_one_stage, needs=("control", "distill"), begins_with="distill"),
}
