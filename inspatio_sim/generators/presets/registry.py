"""The registry of models: sizes, the files they need, where those are published and under which licence.

What a publication does not say is written as such. Sizes are in GB (1e9 bytes).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.checkpoints.wanted import UNSTATED_LICENCE, Role, WantedFile
from inspatio_sim.codecs.sd_vae import SD_VAE
from inspatio_sim.codecs.tiny_network import TinyConfig, taew2_1, tiny_narrow
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.frame_config import FrameConfig, frame_tiny, frame_xl
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import StarConfig, star_1_3b, star_14b, star_tiny

FrameCodecKind = Literal["tiny", "sd_vae"]
TextKind = Literal["hashed", "umt5"]

PAPER = "arXiv:2604.07209"
FRAME_PAPER = "arXiv:2603.11911"
WAN_PAPER = "arXiv:2503.20314"


@dataclass(frozen=True, kw_only=True)
class Preset(ABC):
    """One model: what it is made of, and how it is sampled."""

    generator: ClassVar[str]  # what it is for

    name: str
    summary: str
    files: tuple[WantedFile, ...]
    publication: str
    size_px: tuple[int, int]  # height and width of the frames it was trained on
    pastes_renders: bool = False  # lays rendered pixels over generated ones

    @property
    def needs_diffusers(self) -> bool:
        """Whether nothing runs without that package."""
        return False

    @property
    @abstractmethod
    def sizes(self) -> StarConfig | FrameConfig:
        """Of its transformer."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor of its transformer: widened, and with the table of positions, which a file may lack."""
        return expected_shapes(self.sizes)

    @property
    def num_parameters(self) -> int:
        """Of the transformer."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def wanted(self, role: Role) -> WantedFile:
        """Its file of one role."""
        return next(file for file in self.files if file.role == role)


@dataclass(frozen=True, kw_only=True)
class StarPreset(Preset):
    """A video model."""

    generator: ClassVar[str] = "star"

    star: StarConfig
    codec: TinyConfig  # of the small one; files may hold Wan's own, too
    text_kind: TextKind
    is_base: bool = False  # a text-to-video model: its patch embedding is widened when it is loaded
    noise_scale: float = 1.0  # see `SamplerConfig`
    size_px: tuple[int, int] = (480, 832)

    @property
    def sizes(self) -> StarConfig:
        return self.star


@dataclass(frozen=True, kw_only=True)
class FramePreset(Preset):
    """A model of single frames."""

    generator: ClassVar[str] = "frame"

    frame: FrameConfig
    codec_kind: FrameCodecKind
    latent_scale: float  # of the codec's latents
    steps: tuple[int, ...]  # falling from 999
    size_px: tuple[int, int] = (512, 512)

    @property
    def needs_diffusers(self) -> bool:
        return self.codec_kind == "sd_vae"

    @property
    def sizes(self) -> FrameConfig:
        return self.frame


_WAN = "Apache-2.0"
_WAN_REPO = "Wan-AI/Wan2.1-T2V-1.3B"

_TAEW2_1 = WantedFile(
    role="codec",
    names=("taew2_1.safetensors", "taew2_1.pth"),
    url="https://github.com/madebyollin/taehv/raw/main/safetensors/taew2_1.safetensors",
    licence="MIT",
    size_gb=0.023,
)
_WAN_CODEC = WantedFile(
    role="wan_codec",
    names=("Wan2.1_VAE.pth",),
    repo=_WAN_REPO,
    published=("Wan2.1_VAE.pth",),
    licence=_WAN,
    size_gb=0.508,
    is_needed=False,
    note="for the codec wan",
)
_UMT5 = WantedFile(
    role="text_encoder",
    names=("text_encoder",),  # the tokenizer in ../tokenizer
    holds=("config.json",),
    repo=f"{_WAN_REPO}-Diffusers",
    published=("text_encoder/*", "tokenizer/*"),
    licence=_WAN,
    size_gb=22.7,
    is_needed=False,
    note="for prompts, the empty one needs none; size computed for float32",
)
_SHARED = (_TAEW2_1, _WAN_CODEC, _UMT5)


_SHIPPED_CODEC = WantedFile(
    role="codec",
    names=("tiny_codec.safetensors",),
    licence="Apache-2.0",
    note="comes with this package",
)

_FRAME_REPO = "inspatio/worldfm"


def _of_wan_kind(
    name: str,
    summary: str,
    star: StarConfig,
    transformer: WantedFile,
    *,
    publication: str = PAPER,
    is_base: bool = False,
) -> StarPreset:
    """A model that shares Wan2.1's codec and text encoder."""
    return StarPreset(
        name=name,
        summary=summary,
        star=star,
        codec=taew2_1(),
        text_kind="umt5",
        files=(transformer, *_SHARED),
        publication=publication,
        is_base=is_base,
    )


def _worldfm(
    name: str,
    summary: str,
    transformer: WantedFile,
    *,
    steps: tuple[int, ...],
) -> FramePreset:
    """A model with the sizes of the published InSpatio-WorldFM, and its image codec."""
    return FramePreset(
        name=name,
        summary=summary,
        frame=frame_xl(),
        codec_kind="sd_vae",
        latent_scale=0.13025,
        steps=steps,
        files=(transformer, SD_VAE),
        publication=FRAME_PAPER,
    )


def _worldfm_file(name: str, published: str) -> WantedFile:
    """Its size is as a third party lists it; the tensors named here, in float32, come to the same."""
    return WantedFile(
        role="transformer",
        names=(f"{name}.safetensors", f"{published.removesuffix('.pth')}.safetensors", published),
        repo=_FRAME_REPO,
        published=(published,),
        licence=UNSTATED_LICENCE,
        size_gb=2.459,
    )


_ALL: tuple[Preset, ...] = (
    StarPreset(
        name="tiny",
        summary="This package's own small model, for two CPU cores",
        noise_scale=0.6,  # small as it is, it tells fine noise from content badly
        size_px=(96, 160),
        pastes_renders=True,
        star=star_tiny(),
        codec=tiny_narrow(),
        text_kind="hashed",
        files=(
            WantedFile(
                role="transformer",
                names=("tiny.safetensors",),
                licence="Apache-2.0",
                note="comes with this package",
            ),
            _SHIPPED_CODEC,
        ),
        publication="this package",
    ),
    _of_wan_kind(
        "inspatio-1.3b",
        "InSpatio-World 1.3B, first release",
        star_1_3b(),
        WantedFile(
            role="transformer",
            names=("inspatio-1.3b.safetensors", "InSpatio-World-1.3B.safetensors"),
            repo="inspatio/world",
            published=("InSpatio-World-1.3B.safetensors",),
            licence=UNSTATED_LICENCE,
        ),
    ),
    _of_wan_kind(
        "inspatio-1.3b-v1.5",
        "InSpatio-World 1.5, 1.3B: also from one or four images",
        star_1_3b(),
        WantedFile(
            role="transformer",
            names=("inspatio-1.3b-v1.5.safetensors", "InSpatio-World-1.5-1.3B.safetensors"),
            repo="inspatio/world-1.5",
            published=("InSpatio-World-1.5-1.3B.safetensors",),
            licence=UNSTATED_LICENCE,
            size_gb=5.7,
            note="size computed for float32",
        ),
    ),
    _of_wan_kind(
        "inspatio-14b",
        "InSpatio-World 14B: for weights of your own",
        star_14b(),
        WantedFile(
            role="transformer",
            names=("inspatio-14b.safetensors", "InSpatio-World.safetensors"),
            licence="none: there is no publication",
            note="no 14B weights are published: an early read-me of inspatio/world named InSpatio-World.safetensors, "
            "later ones do not; train your own from wan-t2v-14b",
        ),
    ),
    _of_wan_kind(
        "wan-t2v-1.3b",
        "Wan2.1 text-to-video 1.3B, widened: where training of a 1.3B model begins; ignores render and mask",
        star_1_3b(),
        WantedFile(
            role="transformer",
            names=("wan-t2v-1.3b.safetensors", "diffusion_pytorch_model.safetensors"),
            repo=_WAN_REPO,
            published=("diffusion_pytorch_model.safetensors",),
            licence=_WAN,
            size_gb=5.676,
        ),
        publication=WAN_PAPER,
        is_base=True,
    ),
    _of_wan_kind(
        "wan-t2v-14b",
        "Wan2.1 text-to-video 14B, widened: where training of a 14B model begins; ignores render and mask",
        star_14b(),
        WantedFile(
            role="transformer",
            names=(
                "wan-t2v-14b.safetensors",
                "diffusion_pytorch_model.safetensors.index.json",
                "diffusion_pytorch_model-00001-of-00006.safetensors",
            ),
            repo="Wan-AI/Wan2.1-T2V-14B",
            published=("diffusion_pytorch_model*",),
            licence=_WAN,
            size_gb=57.0,
            note="six shards; size computed for float32",
        ),
        publication=WAN_PAPER,
        is_base=True,
    ),
    FramePreset(
        name="frame-tiny",
        summary="This package's own small model of single frames, for two CPU cores",
        size_px=(96, 160),
        pastes_renders=True,
        frame=frame_tiny(),
        codec_kind="tiny",
        latent_scale=1.4,
        steps=(999, 200),
        files=(
            WantedFile(
                role="transformer",
                names=("frame_tiny.safetensors",),
                licence="Apache-2.0",
                note="comes with this package",
            ),
            _SHIPPED_CODEC,
        ),
        publication="this package",
    ),
    _worldfm(
        "worldfm-1step",
        "InSpatio-WorldFM, distilled to one step",
        _worldfm_file("worldfm-1step", "worldfm_1-step.pth"),
        steps=(999,),
    ),
    _worldfm(
        "worldfm-2step",
        "InSpatio-WorldFM, distilled to two steps",
        _worldfm_file("worldfm-2step", "worldfm_2-step.pth"),
        steps=(999, 200),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def preset_by_name(name: str, generator: str | None = None) -> Preset:
    """A preset of the registry.

    Args:
        name: of the preset.
        generator: the one it must be for; None: any.

    Raises:
        InputError: there is none of this name, or it is for another generator.
    """
    fitting = {other.name: other for other in PRESETS.values() if generator in (None, other.generator)}
    if name in fitting:
        return fitting[name]
    what = f"is for the generator {PRESETS[name].generator}, not {generator}: " if name in PRESETS else ""
    raise InputError(f"preset {name[:40]!r}: {what}want one of {', '.join(fitting)}")


def star_preset(name: str) -> StarPreset:
    """A video model of the registry."""
    preset = preset_by_name(name, StarPreset.generator)
    assert isinstance(preset, StarPreset), f"{name} is a {type(preset).__name__}"
    return preset


def frame_preset(name: str) -> FramePreset:
    """A model of single frames of the registry."""
    preset = preset_by_name(name, FramePreset.generator)
    assert isinstance(preset, FramePreset), f"{name} is a {type(preset).__name__}"
    return preset
