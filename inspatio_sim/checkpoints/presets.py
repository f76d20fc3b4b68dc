"""The registry of models: sizes, the files they need, where those are published and under which licence.

What a publication does not say is written as such. Sizes are in GB (1e9 bytes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from inspatio_sim.checkpoints.keys import expected_shapes
from inspatio_sim.errors import InputError
from inspatio_sim.generators.star.config import StarConfig, star_1_3b, star_14b, star_tiny

Role = Literal["transformer", "codec", "wan_codec", "text_encoder"]
CodecKind = Literal["tiny", "wan"]
CodecConfig = Literal["narrow", "taew2_1", "wan2_1"]
TextKind = Literal["hashed", "umt5"]

STEPS = (1000, 750, 500, 250)
SHIFT = 5.0
PAPER = "arXiv:2604.07209"
WAN_PAPER = "arXiv:2503.20314"

_UNSTATED = "not stated for the weights (their code is Apache-2.0)"


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """One file, or folder of files, that a preset needs."""

    role: Role
    names: tuple[str, ...]  # that it may have, best first; looked for in a folder and two levels below
    licence: str
    repo: str | None = None  # at Hugging Face, where it can be downloaded
    published: tuple[str, ...] = ()  # its name there, or patterns
    url: str = ""  # where it is published otherwise
    size_gb: float | None = None  # None: not confirmed
    is_needed: bool = True  # False: only for what `note` says
    note: str = ""

    @property
    def label(self) -> str:
        """What it is called where it is published."""
        return ", ".join(self.published) or self.names[0]

    @property
    def origin(self) -> str:
        """Where it is published."""
        return f"huggingface.co/{self.repo}" if self.repo else self.url or self.note

    def download_command(self, folder: str) -> str:
        """What to type to get it into a folder, whose name is quoted; empty where it cannot be had."""
        if self.repo:
            names = " ".join(f"--include '{name}'" if "*" in name else name for name in self.published)
            return f"hf download {self.repo} {names} --local-dir {folder}/{self.repo.rpartition('/')[2]}"
        if self.url:
            return f"curl -L --create-dirs -o {folder}/{self.names[0]} {self.url}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One model: what it is made of, and how it is sampled."""

    name: str
    summary: str
    star: StarConfig
    codec_kind: CodecKind
    codec_config: CodecConfig
    text_kind: TextKind
    files: tuple[WantedFile, ...]
    publication: str
    is_base: bool = False  # a text-to-video model: its patch embedding is widened when it is loaded
    steps: tuple[int, ...] = STEPS
    shift: float = SHIFT
    noise_scale: float = 1.0  # see `SamplerConfig`
    size_px: tuple[int, int] = (480, 832)  # height and width of the frames it was trained on
    pastes_renders: bool = False  # lays rendered pixels over generated ones

    @property
    def num_parameters(self) -> int:
        """Of the transformer."""
        return sum(math.prod(shape) for shape in expected_shapes(self.star).values())

    def wanted(self, role: Role) -> WantedFile:
        """Its file of one role."""
        return next(file for file in self.files if file.role == role)


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
    names=("text_encoder/config.json",),  # beside it the weights; the tokenizer in ../tokenizer
    repo=f"{_WAN_REPO}-Diffusers",
    published=("text_encoder/*", "tokenizer/*"),
    licence=_WAN,
    size_gb=22.7,
    is_needed=False,
    note="for prompts, the empty one needs none; size computed for float32",
)
_SHARED = (_TAEW2_1, _WAN_CODEC, _UMT5)


def _of_wan_kind(
    name: str,
    summary: str,
    star: StarConfig,
    transformer: WantedFile,
    *,
    publication: str = PAPER,
    is_base: bool = False,
) -> Preset:
    """A model that shares Wan2.1's codec and text encoder."""
    return Preset(
        name=name,
        summary=summary,
        star=star,
        codec_kind="tiny",
        codec_config="taew2_1",
        text_kind="umt5",
        files=(transformer, *_SHARED),
        publication=publication,
        is_base=is_base,
    )


_ALL = (
    Preset(
        name="tiny",
        summary="This package's own small model, for two CPU cores",
        noise_scale=0.6,  # small as it is, it tells fine noise from content badly
        size_px=(96, 160),
        pastes_renders=True,
        star=star_tiny(),
        codec_kind="tiny",
        codec_config="narrow",
        text_kind="hashed",
        files=(
            WantedFile(
                role="transformer",
                names=("tiny.safetensors",),
                licence="Apache-2.0",
                note="comes with this package",
            ),
            WantedFile(
                role="codec",
                names=("tiny_codec.safetensors",),
                licence="Apache-2.0",
                note="comes with this package",
            ),
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
            licence=_UNSTATED,
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
            licence=_UNSTATED,
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
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def preset_by_name(name: str) -> Preset:
    """A preset of the registry."""
    if name not in PRESETS:
        raise InputError(f"preset {name[:40]!r}: want one of {', '.join(PRESETS)}")
    return PRESETS[name]
