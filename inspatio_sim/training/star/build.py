"""From a run's config to a stage that can be trained: networks, the results of earlier stages, data."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.compiled import compile_blocks
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.star.compiled import ENTRY_POINTS
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.geometry.depth_network import load_depth_network
from inspatio_sim.progress import Progress
from inspatio_sim.scenes.photo_textures import bundled_photos, photos_in, read_photo
from inspatio_sim.training.codec.losses import start_linear_path
from inspatio_sim.training.data.procedural import ProceduralClips
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.depth.stage import DepthPictures, DepthStage, new_depth_network
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.earlier import (
    earlier_codec,
    earlier_star,
    find_earlier,
    found_earlier,
    new_codec,
    new_teacher,
    star_from,
)
from inspatio_sim.training.engine.iteration import BatchPlan
from inspatio_sim.training.engine.trainer import Stage
from inspatio_sim.training.star.configs import DataConfig, RunConfig
from inspatio_sim.training.star.passes import Conditions
from inspatio_sim.training.star.prepare import (
    STYLES,
    clip_config,
    held_out_clip,
    held_out_latents,
    open_latents,
    prepare,
)
from inspatio_sim.training.star.prepare import text_encoder as text_encoder_of
from inspatio_sim.training.star.sources import (
    EncodedClips,
    FrameCrops,
    InMemory,
    Joined,
    Prefetched,
    TextAlone,
    film_clips,
    joined_rows,
)
from inspatio_sim.training.star.stages import (
    Clips,
    CodecStage,
    DistillStage,
    InitStage,
    Shown,
    Task,
    TaskName,
    TeacherStage,
    recompute_blocks,
)

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)

GB = 1e9
LINEAR_BATCHES = 75  # of crops that the codec's linear path is fitted to
CROPS_PER_BATCH = 40


class MixedClips:
    """Clips of all styles in turn, for the codec."""

    def __init__(self, data: DataConfig) -> None:
        self._num_clips = data.pool_clips
        self._styles = [ProceduralClips(clip_config(data, style, num_clips=data.pool_clips)) for style in STYLES]

    def __len__(self) -> int:
        return self._num_clips

    def __getitem__(self, index: int) -> Sample:
        clip, style = divmod(index, len(STYLES))
        return self._styles[style][clip]


@dataclass(kw_only=True)
class Workshop:
    """What stages are built from."""

    config: RunConfig
    ranks: Ranks
    start: Path | None = None  # weights that the trained network begins with, in place of the usual ones
    progress: Progress | None = None

    @property
    def schedule(self) -> FlowSchedule:
        return FlowSchedule(self.config.shift)

    @cached_property
    def codec(self) -> TinyAutoencoder:
        """Frozen, on the CPU."""
        return earlier_codec(self.config)

    @property
    def num_samples(self) -> int:
        """That the run will see."""
        trainer = self.config.trainer
        return trainer.max_steps * trainer.batch_size * trainer.accumulate * self.ranks.world_size

    @property
    def num_clips(self) -> int:
        """Of each style: no more than will be seen."""
        return min(self.config.data.num_clips, self.num_samples)

    def prepare(self, *styles: Style) -> None:
        """Have clips encoded, by one rank while the others wait."""
        for style in styles if self.ranks.is_main else ():
            prepare(self.config, style, self.codec, num_clips=self.num_clips, progress=self.progress)
        self.ranks.wait_long()

    def clips(self, *styles: Style, every: int = 1) -> Clips:
        """Batches of encoded clips, of the styles in turn; see `Prefetched` for `every`."""
        data = self.config.data
        parts = [open_latents(self.config, style, self.codec, num_clips=self.num_clips) for style in styles]
        is_small = sum(part.num_bytes for part in parts) <= data.memory_gb * GB
        held = Joined([InMemory(part, self.progress) if is_small else part for part in parts])
        source = EncodedClips(
            held, seed=self.config.trainer.seed, window_latents=data.window_latents, device=self.ranks.device
        )
        return Prefetched(source, self.plan, world_size=self.ranks.world_size, every=every)

    def crops(self) -> FrameCrops:
        """Batches of frames for the codec."""
        data = self.config.data
        photos = bundled_photos() | (photos_in(data.texture_folder) if data.texture_folder else {})
        make = partial(MixedClips, data)
        films = film_clips(make, data.pool_clips, num_workers=data.workers, progress=self.progress)
        return FrameCrops(
            films,
            num_frames=data.crop_frames,
            size_px=data.crop_px,
            seed=self.config.trainer.seed,
            photos_u8=[read_photo(path) for path in photos],
            is_varied=True,
        )

    def shown(self, style: Style, *, is_text_alone: bool = False) -> Shown | None:
        """A held-out clip, if pictures are asked for."""
        if not self.config.trainer.sample_every:
            return None
        row = held_out_latents(self.config, style, self.codec)
        target, conditions = joined_rows([row], self.ranks.device)
        if is_text_alone:
            conditions = Conditions(text=conditions.text)
        codec = filled_copy(TinyAutoencoder(self.config.codec), self.codec).eval().to(self.ranks.device)
        return Shown(codec=TinyCodec(codec), target=target, conditions=conditions)

    def star(self, stage: str) -> StarTransformer:
        """The transformer that an earlier stage left, on this rank's device."""
        return earlier_star(self.config, stage).to(self.ranks.device)

    def compiled(self, network: StarTransformer) -> StarTransformer:
        """A transformer made faster, in place, if that is asked for."""
        if self.config.compile:
            check_compiler(self.ranks.device)
            compile_blocks(network, ENTRY_POINTS)
        return network

    def trained(self, network: StarTransformer) -> StarTransformer:
        """A transformer made ready for gradients, in place."""
        self.compiled(network)
        if self.config.checkpoint_activations:
            recompute_blocks(network)
        return network.requires_grad_(True).train()

    @property
    def plan(self) -> BatchPlan:
        trainer = self.config.trainer
        return BatchPlan(seed=trainer.seed, batch_size=trainer.batch_size, accumulate=trainer.accumulate)


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """One entry of `STAGES`."""

    build: Callable[[Workshop], Stage]
    needs: tuple[str, ...] = ()  # earlier stages
    begins_with: str | None = None  # that of them which `start` stands in for


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where there is nothing to do it with."""
    if device.type == "cpu" and not (os.environ.get("CXX") or shutil.which("g++")):
        raise InputError("compile=true: no C++ compiler found: install g++, or set compile=false")


def build_stage(stage: str, workshop: Workshop) -> Stage:
    """A stage that is ready to be trained; its data are prepared."""
    for earlier in needs(stage, workshop.config, workshop.start):  # before anything that takes long
        found = found_earlier(workshop.config, earlier)
        if found.kind != "run" and workshop.ranks.is_main:
            logger.warning("%s was not run in %s: in its place %s", earlier, workshop.config.folder, found.shown)
    return STAGES[stage].build(workshop)


def needs(stage: str, config: RunConfig, start: Path | None) -> list[str]:
    """Earlier stages whose results a stage uses."""
    kind = STAGES[stage]
    unused = {kind.begins_with} if start else set()
    return [name for name in kind.needs if name not in unused and (name != "t2v-teacher" or config.t2v_weight)]


def joint_if_possible(config: RunConfig) -> RunConfig:
    """The distillation without its text-to-video task, where the teacher of that alone was never trained nor shipped.

    A published teacher that is missing stays a mistake.
    """
    wants_t2v = config.t2v_weight > 0 and config.preset is None
    if not wants_t2v or find_earlier(config, "t2v-teacher") or not find_earlier(config, "teacher"):
        return config
    return replace(config, t2v_weight=0.0)


def codec_stage(workshop: Workshop) -> CodecStage:
    """The codec, from random weights; its linear path from the principal components of its crops."""
    config = workshop.config
    clip = held_out_clip(config.data, "photo")
    frames = np.stack([clip.target_u8[: config.data.crop_frames]])
    codec, crops = new_codec(config, workshop.start), workshop.crops()
    if config.codec.linear_path:
        if workshop.start is None:
            start_linear_path(codec, partial(batches_of_frames, crops), seed=config.seed)
        codec.linear_encoder.requires_grad_(False)  # latents stay what they are while the decoder learns
    return CodecStage(
        codec,
        Prefetched(crops, workshop.plan, world_size=workshop.ranks.world_size),
        adam=config.adam,
        loss=config.codec_loss,
        shown=torch.from_numpy(frames).float() / 255,
    )


def depth_stage(workshop: Workshop) -> DepthStage:
    """The depth network, from push-pull completion."""
    config = workshop.config.depth
    network = new_depth_network(config)
    if workshop.start:
        started = load_depth_network(workshop.start)
        if started.config != config.network:
            came = f"--from {workshop.start}: widths {started.config.widths}"
            raise InputError(f"{came}: want {config.network.widths}, or --set depth.network.widths")
        network.load_state_dict(started.state_dict())
    config = replace(config, clips_per_style=min(config.clips_per_style, workshop.num_samples))
    return DepthStage(network, DepthPictures(config, workshop.progress), adam=config.adam)


def batches_of_frames(crops: FrameCrops) -> Iterator[Tensor]:
    """Frames for the codec's linear path: whole groups of four, not the first of a stream."""
    for batch_idx in range(LINEAR_BATCHES):
        first = batch_idx * CROPS_PER_BATCH
        yield crops(list(range(first, first + CROPS_PER_BATCH)))[:, 1:]


def teacher_stage(workshop: Workshop) -> TeacherStage:
    """The motion teacher."""
    config = workshop.config
    teacher = workshop.trained(new_teacher(config, "teacher", workshop.start))
    workshop.prepare(*config.v2v_styles)
    return TeacherStage(
        teacher,
        workshop.clips(*config.v2v_styles),
        adam=config.adam,
        schedule=workshop.schedule,
        shown=workshop.shown(config.v2v_styles[0]),
    )


def t2v_teacher_stage(workshop: Workshop) -> TeacherStage:
    """The perceptual teacher: text alone, photo style."""
    config = workshop.config
    teacher = workshop.trained(new_teacher(config, "t2v-teacher", workshop.start))
    workshop.prepare("photo")
    return TeacherStage(
        teacher,
        TextAlone(workshop.clips("photo")),
        adam=config.adam,
        schedule=workshop.schedule,
        shown=workshop.shown("photo", is_text_alone=True),
    )


def init_stage(workshop: Workshop) -> InitStage:
    """The student, from the motion teacher's averaged weights."""
    config = workshop.config
    student = star_from(config, workshop.start) if workshop.start else workshop.star("teacher")
    workshop.prepare(*config.v2v_styles)
    return InitStage(
        workshop.trained(student),
        workshop.clips(*config.v2v_styles),
        adam=config.adam,
        schedule=workshop.schedule,
        config=config.init,
        shown=workshop.shown(config.v2v_styles[0]),
    )


def distill_stage(workshop: Workshop) -> DistillStage:
    """The student against the teachers; each critic begins as its teacher."""
    config = workshop.config
    student = star_from(config, workshop.start) if workshop.start else workshop.star("init")
    is_joint = config.t2v_weight > 0
    workshop.prepare(*(STYLES if is_joint else config.v2v_styles))

    def task(name: TaskName, teacher: str, styles: tuple[Style, ...], weight: float) -> Task:
        real = workshop.compiled(workshop.star(teacher))
        fake = workshop.trained(filled_copy(StarTransformer(config.star), real))
        clips = workshop.clips(*styles, every=1 + is_joint)
        return Task(name=name, real=real, fake=fake, clips=clips, weight=weight)

    tasks = [task("v2v", "teacher", config.v2v_styles, 1.0)]
    if is_joint:
        tasks.append(task("t2v", "t2v-teacher", ("photo",), config.t2v_weight))
    return DistillStage(
        workshop.trained(student),
        tuple(tasks),
        negative_text=text_encoder_of(config).encode(""),
        schedule=workshop.schedule,
        config=config.distill,
        shown=workshop.shown(config.v2v_styles[0]),
    )


STAGES: dict[str, StageKind] = {
    "codec": StageKind(build=codec_stage),
    "depth": StageKind(build=depth_stage),
    "teacher": StageKind(build=teacher_stage, needs=("codec",)),
    "t2v-teacher": StageKind(build=t2v_teacher_stage, needs=("codec",)),
    "init": StageKind(build=init_stage, needs=("codec", "teacher"), begins_with="teacher"),
    "distill": StageKind(build=distill_stage, needs=("codec", "teacher", "t2v-teacher", "init"), begins_with="init"),
}


def filled_copy(network: Module, source: Module) -> Module:
    """A network, with the weights of another."""
    network.load_state_dict(source.state_dict())
    return network
