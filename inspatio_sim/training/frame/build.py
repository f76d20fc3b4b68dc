"""The frame generator's family: what its stages are built from, and what they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from inspatio_sim.codecs.image import ImageCodec
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from inspatio_sim.generators.presets.identify import config_notes
from inspatio_sim.training.engine.family import Family, Shipped, StageKind
from inspatio_sim.training.engine.inputs import StageInputs, filled_copy
from inspatio_sim.training.engine.results import Result, plain
from inspatio_sim.training.frame.configs import CONFIGS, FrameRunConfig
from inspatio_sim.training.frame.cost import frame_stage_cost
from inspatio_sim.training.frame.data import FrameDataConfig, FrameSamples, held_out
from inspatio_sim.training.frame.films import Films
from inspatio_sim.training.frame.networks import frame_from, image_codec
from inspatio_sim.training.frame.stages import ControlStage, DistillStage, Frames, PretrainStage, Shown

SHOWN = 6  # frames on a sample sheet
SHOWN_CLIPS = 3  # that they are from, of each style


@dataclass(kw_only=True)
class FrameInputs(StageInputs[FrameRunConfig]):
    """What the stages are built from."""

    @property
    def schedule(self) -> DdpmSchedule:
        return DdpmSchedule(self.ranks.device)

    @cached_property
    def codec(self) -> ImageCodec:
        return image_codec(self.config, self.ranks.device)

    def frames(self) -> Frames:
        """Batches of samples; no more clips are filmed than will be seen."""
        data = self.config.data
        data = replace(data, clips_per_style=min(data.clips_per_style, self.num_samples))
        return self.prefetched(FrameSamples(data, self.codec, films=self._films(data)))

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
        if self.start:
            return frame_from(self.config, Result(stage=stage, kind="run", path=self.start))
        found = self.found(earlier) if earlier else Result(stage=stage, kind="random", path=None)
        return frame_from(self.config, found)


def pretrain_stage(inputs: FrameInputs) -> PretrainStage:
    """Images by themselves, from random weights."""
    return PretrainStage(inputs.trained(inputs.started("pretrain")), **_diffusion(inputs))


def control_stage(inputs: FrameInputs) -> ControlStage:
    """Images from anchors and reference, from the pretrained averages."""
    return ControlStage(inputs.trained(inputs.started("control", "pretrain")), **_diffusion(inputs))


def _diffusion(inputs: FrameInputs) -> dict[str, Any]:
    config = inputs.config
    return {
        "frames": inputs.frames(),
        "adam": config.adam,
        "schedule": inputs.schedule,
        "config": config.diffusion,
        "shown": inputs.shown(),
    }


def distill_stage(inputs: FrameInputs) -> DistillStage:
    """A few steps, from the controlled model's averages."""
    return _distillation(inputs, inputs.started("distill", "control"))


def distill_one_stage(inputs: FrameInputs) -> DistillStage:
    """One step, from the student of a few."""
    return _distillation(inputs, inputs.started("distill-one", "distill"))


def _distillation(inputs: FrameInputs, student: FrameTransformer) -> DistillStage:
    """Against the controlled model; the critic begins as a copy of it."""
    config = inputs.config
    real = frame_from(config, inputs.found("control"))
    fake = filled_copy(FrameTransformer(config.frame), real)
    return DistillStage(
        inputs.trained(student),
        real=inputs.compiled(real),
        fake=inputs.trained(fake),
        frames=inputs.frames(),
        schedule=inputs.schedule,
        config=config.diffusion,
        distill=config.distill,
        shown=inputs.shown(),
    )


def _network(config: FrameRunConfig, stage: str) -> FrameTransformer:
    del stage
    return FrameTransformer(config.frame)


def _notes(config: FrameRunConfig, stage: str) -> Mapping[str, Any]:
    """Beside the origin of a result."""
    data = plain(config.data)
    del data["workers"], data["texture_folder"]  # of this machine
    distill = {"distill": plain(config.distill)} if stage.startswith("distill") else {}
    model = {**config_notes(config.frame), "latent_scale": config.latent_scale}
    return {"data": data, "diffusion": plain(config.diffusion), **distill, **model}


def _file_name(config: FrameRunConfig, stage: str = "") -> str:
    """Without suffix; without a stage that of the file which ships."""
    return f"{config.name}_{stage}".replace("-", "_").rstrip("_")


FRAME = Family(
    configs=CONFIGS,
    stages={
        "pretrain": StageKind(key="frame/pretrain", build=pretrain_stage),
        "control": StageKind(key="frame/control", build=control_stage, needs=("pretrain",), begins_with="pretrain"),
        "distill": StageKind(key="frame/distill", build=distill_stage, needs=("control",)),
        "distill-one": StageKind(
            key="frame/distill-one", build=distill_one_stage, needs=("control", "distill"), begins_with="distill"
        ),
    },
    inputs=FrameInputs,
    network=_network,
    cost=frame_stage_cost,
    notes=_notes,
    result_name=_file_name,
    stand_ins=lambda config, stage: (_file_name(config),),
    ships=lambda config: {
        "student": Shipped(stage=config.student, file_name=f"{_file_name(config)}.safetensors", dtype=torch.bfloat16)
    },
)
