"""The video student's family, with its codec and the depth network: what stages are built from, and leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspatio_sim.checkpoints.wanted import Role
from inspatio_sim.codecs import TinyAutoencoder, TinyCodec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.identify import config_notes
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.star.compiled import ENTRY_POINTS
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.geometry.depth_network import DepthNetwork, load_depth_network, save_depth_network
from inspatio_sim.progress import Progress
from inspatio_sim.scenes.photo_textures import bundled_photos, photos_in, read_photo
from inspatio_sim.training.codec.crops import FrameCrops, film_clips
from inspatio_sim.training.codec.losses import start_linear_path
from inspatio_sim.training.codec.stage import CodecStage
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.depth.stage import DepthPictures, DepthStage, new_depth_network
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import Family, Published, Shipped, StageKind
from inspatio_sim.training.engine.inputs import StageInputs, filled_copy
from inspatio_sim.training.engine.results import Result, find_result, plain
from inspatio_sim.training.star.configs import CONFIGS, DataConfig, RunConfig
from inspatio_sim.training.star.cost import stage_cost
from inspatio_sim.training.star.flows import Conditions
from inspatio_sim.training.star.networks import codec_from, new_codec, new_teacher, transformer_from
from inspatio_sim.training.star.prepare import (
    STYLES,
    clips_of,
    held_out_clip,
    held_out_latents,
    is_read,
    latents_folder,
    open_latents,
    prepare,
)
from inspatio_sim.training.star.prepare import text_encoder as text_encoder_of
from inspatio_sim.training.star.sources import EncodedClips, InMemory, Joined, TextAlone, joined_rows
from inspatio_sim.training.star.stages import Clips, DistillStage, InitStage, Shown, Task, TaskName, TeacherStage

GB = 1e9
LINEAR_BATCHES = 75  # of crops that the codec's linear path is fitted to
CROPS_PER_BATCH = 40
NO_T2V_TEACHER = "no text-to-video teacher: clips along paths alone are distilled, as with t2v_weight=0; for both tasks"
PUBLISHED_ROLES: dict[str, Role] = {"codec": "codec", "t2v-teacher": "transformer"}


class MixedClips:
    """Clips of all styles in turn, for the codec."""

    def __init__(self, data: DataConfig) -> None:
        self._num_clips = data.pool_clips
        num_clips = -(-data.pool_clips // len(STYLES))
        self._styles = [clips_of(data, style, num_clips=num_clips) for style in STYLES]

    def __len__(self) -> int:
        return self._num_clips

    def __getitem__(self, index: int) -> Sample:
        clip, style = divmod(index, len(STYLES))
        return self._styles[style][clip]


@dataclass(kw_only=True)
class StarInputs(StageInputs[RunConfig]):
    """What the stages are built from."""

    compiled_calls = ENTRY_POINTS
    recomputed_calls = ("forward", "with_keys")

    @property
    def schedule(self) -> FlowSchedule:
        return FlowSchedule(self.config.shift)

    @cached_property
    def codec(self) -> TinyAutoencoder:
        """Frozen, on the CPU."""
        return codec_from(self.config, self.found("codec"))

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
        return self.prefetched(source, every=every)

    def crops(self) -> FrameCrops:
        """Batches of frames for the codec."""
        data = self.config.data
        photos = bundled_photos() | (photos_in(data.texture_folder) if data.texture_folder else {})
        make = partial(MixedClips, data)
        if is_read(data):
            make()  # says what is wrong before other processes begin
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
        return transformer_from(self.config, self.found(stage)).to(self.ranks.device)

    def student(self, earlier: str) -> StarTransformer:
        """The student to train: from a file, else what an earlier stage left."""
        if self.start:
            return transformer_from(self.config, Result(stage=earlier, kind="run", path=self.start))
        return self.star(earlier)


def codec_stage(inputs: StarInputs) -> CodecStage:
    """The codec, from random weights; its linear path from the principal components of its crops."""
    config = inputs.config
    clip = held_out_clip(config.data, "photo")
    frames = np.stack([clip.target_u8[: config.data.crop_frames]])
    codec, crops = new_codec(config, inputs.start), inputs.crops()
    if config.codec.linear_path:
        if inputs.start is None:
            start_linear_path(codec, partial(batches_of_frames, crops), seed=config.seed)
        codec.linear_encoder.requires_grad_(False)  # latents stay what they are while the decoder learns
    return CodecStage(
        codec,
        inputs.prefetched(crops),
        adam=config.adam,
        loss=config.codec_loss,
        shown=torch.from_numpy(frames).float() / 255,
    )


def depth_stage(inputs: StarInputs) -> DepthStage:
    """The depth network, from push-pull completion."""
    config = inputs.config.depth
    network = new_depth_network(config)
    if inputs.start:
        started = load_depth_network(inputs.start)
        if started.config != config.network:
            came = f"--from {inputs.start}: widths {started.config.widths}"
            raise InputError(f"{came}: want {config.network.widths}, or --set depth.network.widths")
        network.load_state_dict(started.state_dict())
    config = replace(config, clips_per_style=min(config.clips_per_style, inputs.num_samples))
    return DepthStage(network, DepthPictures(config, inputs.progress), adam=config.adam)


def batches_of_frames(crops: FrameCrops) -> Iterator[Tensor]:
    """Frames for the codec's linear path: whole groups of four, not the first of a stream."""
    for batch_idx in range(LINEAR_BATCHES):
        first = batch_idx * CROPS_PER_BATCH
        yield crops(list(range(first, first + CROPS_PER_BATCH)))[:, 1:]


def teacher_stage(inputs: StarInputs, *, stage: str = "teacher", styles: tuple[Style, ...] = ()) -> TeacherStage:
    """The motion teacher; or the perceptual one: from text alone, of other styles."""
    config, is_text_alone = inputs.config, stage == "t2v-teacher"
    styles = styles or config.v2v_styles
    teacher = inputs.trained(new_teacher(config, stage, inputs.start))
    inputs.prepare(*styles)
    clips = inputs.clips(*styles)
    return TeacherStage(
        teacher,
        TextAlone(clips) if is_text_alone else clips,
        adam=config.adam,
        schedule=inputs.schedule,
        shown=inputs.shown(styles[0], is_text_alone=is_text_alone),
    )


def init_stage(inputs: StarInputs) -> InitStage:
    """The student, from the motion teacher's averaged weights."""
    config = inputs.config
    student = inputs.student("teacher")
    inputs.prepare(*config.v2v_styles)
    return InitStage(
        inputs.trained(student),
        inputs.clips(*config.v2v_styles),
        adam=config.adam,
        schedule=inputs.schedule,
        config=config.init,
        shown=inputs.shown(config.v2v_styles[0]),
    )


def distill_stage(inputs: StarInputs) -> DistillStage:
    """The student against the teachers; each critic begins as its teacher."""
    config = inputs.config
    student = inputs.student("init")
    is_joint = config.t2v_weight > 0
    inputs.prepare(*(STYLES if is_joint else config.v2v_styles))

    def task(name: TaskName, teacher: str, styles: tuple[Style, ...], weight: float) -> Task:
        real = inputs.compiled(inputs.star(teacher))
        fake = inputs.trained(filled_copy(StarTransformer(config.star), real))
        clips = inputs.clips(*styles, every=1 + is_joint)
        return Task(name=name, real=real, fake=fake, clips=clips, weight=weight)

    tasks = [task("v2v", "teacher", config.v2v_styles, 1.0)]
    if is_joint:
        tasks.append(task("t2v", "t2v-teacher", ("photo",), config.t2v_weight))
    return DistillStage(
        inputs.trained(student),
        tuple(tasks),
        negative_text=text_encoder_of(config).encode(""),
        schedule=inputs.schedule,
        config=config.distill,
        shown=inputs.shown(config.v2v_styles[0]),
    )


def prepare_clips(config: RunConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Encode all the clips of a run; the report."""
    inputs = StarInputs(family=STAR, config=config, ranks=Ranks(), progress=progress)
    for style in STYLES:
        prepare(config, style, inputs.codec, num_clips=config.data.num_clips, progress=progress)
    folders = {style: str(latents_folder(config, style)) for style in STYLES}
    return {
        "command": "train",
        "stage": "star/prepare",
        "config": config.name,
        "num_clips": config.data.num_clips,
        "folders": folders,
    }


def _network(config: RunConfig, stage: str) -> nn.Module:
    if stage == "codec":
        return TinyAutoencoder(config.codec)
    return DepthNetwork(config.depth.network) if stage == "depth" else StarTransformer(config.star)


def _notes(config: RunConfig, stage: str) -> Mapping[str, Any]:
    """Beside the origin of a result."""
    if stage == "depth":
        return {"seed": config.depth.seed, "training": plain(config.depth)}
    return {"codec": plain(config.codec), **({} if stage == "codec" else config_notes(config.star))}


def _save_depth(config: RunConfig, path: Path, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
    trainer = notes.pop("trainer")
    save_depth_network(path, config.depth.network, tensors, {**notes, "trainer": trainer})


def _result_name(config: RunConfig, stage: str) -> str:
    """That it ships by, too."""
    return config.name if stage == "distill" else f"{config.name}_{stage.replace('-', '_')}"


def _stand_ins(config: RunConfig, stage: str) -> tuple[str, ...]:
    """The student that ships also stands in for what `init` leaves."""
    return _result_name(config, stage), *([config.name] if stage == "init" else [])


def _published(config: RunConfig, stage: str) -> Published | None:
    if not config.preset or stage not in PUBLISHED_ROLES:
        return None
    preset = star_preset(config.preset)
    wanted = preset.wanted(PUBLISHED_ROLES[stage])
    path = find.find_file(preset, wanted, find.weights_folders())
    return Published(path=path, missing=find.missing_text(wanted, "weights"))


def _adapt(family: Family[RunConfig], stage: str, config: RunConfig) -> tuple[RunConfig, str]:
    """The distillation without its text-to-video task, where the teacher of that alone was never trained nor shipped.

    A published teacher that is missing stays a mistake.
    """
    wants_t2v = stage == "distill" and config.t2v_weight > 0 and config.preset is None
    if not wants_t2v or find_result(family, config, "t2v-teacher") or not find_result(family, config, "teacher"):
        return config, ""
    run = family.command(family.stages["t2v-teacher"].key, config)
    return replace(config, t2v_weight=0.0), f"{NO_T2V_TEACHER} run {run} first"


def _ships(config: RunConfig) -> dict[str, Shipped]:
    """Transformers in bfloat16, the others as they are; the text-to-video teacher stays."""
    stages = {"codec": "codec", "depth": "depth", "teacher": "teacher", "student": config.student}
    names = {what: _result_name(config, "distill" if what == "student" else what) for what in stages}
    dtypes = {"teacher": torch.bfloat16, "student": torch.bfloat16}
    return {
        what: Shipped(stage=stage, file_name=f"{names[what]}.safetensors", dtype=dtypes.get(what))
        for what, stage in stages.items()
    }


STAR = Family(
    configs=CONFIGS,
    stages={
        "codec": StageKind(key="codec/train", build=codec_stage),
        "depth": StageKind(key="depth/train", build=depth_stage, save=_save_depth),
        "teacher": StageKind(key="star/teacher", build=teacher_stage, needs=("codec",)),
        "t2v-teacher": StageKind(
            key="star/t2v-teacher",
            build=partial(teacher_stage, stage="t2v-teacher", styles=("photo",)),
            needs=("codec",),
        ),
        "init": StageKind(key="star/init", build=init_stage, needs=("codec", "teacher"), begins_with="teacher"),
        "distill": StageKind(
            key="star/distill",
            build=distill_stage,
            needs=("codec", "teacher", "t2v-teacher", "init"),
            begins_with="init",
        ),
    },
    inputs=StarInputs,
    network=_network,
    cost=stage_cost,
    notes=_notes,
    result_name=_result_name,
    stand_ins=_stand_ins,
    ships=_ships,
    published=_published,
    adapt=_adapt,
    unused=lambda config: () if config.t2v_weight else ("t2v-teacher",),
)
