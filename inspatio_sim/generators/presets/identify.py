"""What a checkpoint is, told from the names and shapes of its tensors and the notes in its header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from inspatio_sim.checkpoints.files import Checkpoint
from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.checkpoints.wanted import WantedFile
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.generators.presets.keys import COMPUTED, num_blocks
from inspatio_sim.generators.presets.plan import shapes_by_canonical_name
from inspatio_sim.generators.presets.registry import PRESETS, FramePreset, Preset, StarPreset
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import LATENT_CHANNELS, StarConfig

PRESET_NOTE, STAR_NOTE, FRAME_NOTE, LICENCE_NOTE = "preset", "star_config", "frame_config", "licence"

_Config = TypeVar("_Config", StarConfig, FrameConfig)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a checkpoint holds."""

    what: str  # in words
    is_transformer: bool = False
    presets: tuple[str, ...] = ()  # that its tensors fit
    publication: str = ""  # empty: cannot be told
    licence: str = ""


def identify(checkpoint: Checkpoint) -> Identity:
    """Tell what a checkpoint is; of models with the same tensors, its name and header say which."""
    shapes = shapes_by_canonical_name(checkpoint)
    if "patch_embedding.weight" in shapes and "head.head.weight" in shapes:
        return _identify_star(checkpoint, shapes)
    if "x_embedder.proj.weight" in shapes and "final_layer.linear.weight" in shapes:
        return _identify_frame(checkpoint, shapes)
    others = [file for preset in PRESETS.values() for file in preset.files if file.role != "transformer"]
    wanted = next((file for file in others if _is_called(checkpoint, file)), None)
    return Identity(
        what=_other_model(shapes),
        publication=f"{wanted.label} of {wanted.origin}" if wanted else "",
        licence=checkpoint.metadata.get(LICENCE_NOTE, wanted.licence if wanted else ""),
    )


def looks_like(checkpoint: Checkpoint) -> str:
    """`identify` in a few words."""
    identity = identify(checkpoint)
    return f"{identity.what} (fits {', '.join(identity.presets)})" if identity.presets else identity.what


def fits(shapes: Mapping[str, Shape], preset: Preset) -> bool:
    """Whether these are the tensors of a preset's transformer, widened or not; tables that it computes do not count."""
    return _without_tables(shapes) == _without_tables(preset.shapes) or (
        isinstance(preset, StarPreset)
        and preset.is_base
        and shapes == expected_shapes(replace(preset.star, in_channels=LATENT_CHANNELS))
    )


def stored_config(checkpoint: Checkpoint) -> StarConfig | None:
    """The sizes of a STAR transformer, heads included: from the file's header, or those of the preset it fits.

    Raises:
        InputError: the header and the tensors disagree.
    """
    config = _noted(checkpoint, STAR_NOTE, StarConfig)
    return config or next((preset.star for preset in _fitting(checkpoint) if isinstance(preset, StarPreset)), None)


def stored_frame_config(checkpoint: Checkpoint) -> FrameConfig | None:
    """The same of a frame transformer."""
    config = _noted(checkpoint, FRAME_NOTE, FrameConfig)
    return config or next((preset.frame for preset in _fitting(checkpoint) if isinstance(preset, FramePreset)), None)


def config_note(config: StarConfig | FrameConfig) -> str:
    """What `stored_config` or `stored_frame_config` reads."""
    return json.dumps(asdict(config), sort_keys=True)


def config_notes(config: StarConfig | FrameConfig) -> dict[str, str]:
    """The same under the name that it has in a header."""
    return {STAR_NOTE if isinstance(config, StarConfig) else FRAME_NOTE: config_note(config)}


def _fitting(checkpoint: Checkpoint) -> list[Preset]:
    shapes = shapes_by_canonical_name(checkpoint)
    return [preset for preset in PRESETS.values() if fits(shapes, preset)]


def _noted(checkpoint: Checkpoint, note: str, make: Callable[..., _Config]) -> _Config | None:
    """The sizes in a file's header, if they are those of its tensors."""
    if note not in checkpoint.metadata:
        return None
    try:
        config = make(**json.loads(checkpoint.metadata[note]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{checkpoint.path}: {note} in its header cannot be used ({error})") from error
    if not _describes(config, shapes_by_canonical_name(checkpoint)):
        raise InputError(f"{checkpoint.path}: {note} in its header does not describe its tensors")
    return config


def _describes(config: StarConfig | FrameConfig, shapes: Mapping[str, Shape]) -> bool:
    """Whether a network of these sizes has these tensors; one whose sizes no tensor has is not even made."""
    if isinstance(config, FrameConfig):
        config = replace(config, input_size=config.patch_size)  # tables grow with it, and do not count
        num_layers, width = config.depth, config.hidden_size
    else:
        num_layers, width = config.num_layers, config.dim
    if num_layers > len(shapes) or not any(width in shape for shape in shapes.values()):
        return False
    try:
        return _without_tables(expected_shapes(config)) == _without_tables(shapes)
    except RuntimeError:  # sizes that no memory has
        return False


def _without_tables(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name not in COMPUTED}


def _identify_star(checkpoint: Checkpoint, shapes: Mapping[str, Shape]) -> Identity:
    embedding, hidden = shapes["patch_embedding.weight"], shapes.get("blocks.0.ffn.0.weight")
    if len(embedding) != 5 or not hidden:
        return Identity(what="part of a video transformer", is_transformer=True)
    width, channels = embedding[:2]
    kind = "a STAR transformer" if channels > LATENT_CHANNELS else "a text-to-video transformer of Wan2.1"
    what = f"{kind}: width {width}, {num_blocks(shapes)} layers, feed-forward {hidden[0]}, {channels} channels in"
    return _identify_transformer(checkpoint, what)


def _identify_frame(checkpoint: Checkpoint, shapes: Mapping[str, Shape]) -> Identity:
    embedder = shapes["x_embedder.proj.weight"]
    if len(embedder) != 4:
        return Identity(what="part of a frame transformer", is_transformer=True)
    width, channels = embedder[:2]
    has_caption = "y_embedder.y_embedding" in shapes
    is_text_to_image = has_caption and "plucker_proj.0.weight" not in shapes
    kind = "a text-to-image transformer of PixArt" if is_text_to_image else "a frame transformer of WorldFM"
    what = f"{kind}: width {width}, {num_blocks(shapes)} layers, {channels} channels in"
    return _identify_transformer(checkpoint, what)


def _identify_transformer(checkpoint: Checkpoint, what: str) -> Identity:
    """Which presets it fits; of several, its header or its name says which one it is."""
    fitting = _fitting(checkpoint)
    noted = checkpoint.metadata.get(PRESET_NOTE)
    named = [p for p in fitting if p.name == noted or (not noted and _is_called(checkpoint, p.wanted("transformer")))]
    licence = checkpoint.metadata.get(LICENCE_NOTE, "")
    if len(named) != 1:
        return Identity(
            what=what, is_transformer=True, presets=tuple(preset.name for preset in fitting), licence=licence
        )
    preset = named[0]
    wanted = preset.wanted("transformer")
    return Identity(
        what=what,
        is_transformer=True,
        presets=(preset.name, *(other.name for other in fitting if other is not preset)),
        publication=f"{wanted.label} of {wanted.origin} ({preset.publication})",
        licence=licence or wanted.licence,
    )


def _is_called(checkpoint: Checkpoint, wanted: WantedFile) -> bool:
    path = checkpoint.path
    return path.name in wanted.holds and path.parent.name in wanted.names if wanted.holds else path.name in wanted.names


def _other_model(shapes: Mapping[str, Shape]) -> str:
    """Models that are not transformers of this package, by tensors that only they have."""
    decoder = shapes.get("decoder.1.weight", ())
    if len(decoder) == 4 and "decoder.22.weight" in shapes:
        return f"a TAEHV autoencoder: decoder width {decoder[0]}, {decoder[1]} latent channels"
    if "decoder.upsamples.0.residual.0.gamma" in shapes:
        return "the video autoencoder of Wan2.1, or of its form"
    encoder, quant = shapes.get("encoder.conv_in.weight", ()), shapes.get("quant_conv.weight", ())
    if len(encoder) == 4 and len(quant) == 4:
        return f"an image autoencoder of diffusers (AutoencoderKL): {quant[0] // 2} latent channels"
    if "adaln_single.linear.weight" in shapes:
        return "a PixArt transformer with diffusers' names"
    if "token_embedding.weight" in shapes and "blocks.0.attn.q.weight" in shapes:
        return "a UMT5 text encoder in Wan's form"
    if "shared.weight" in shapes and "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        return "a T5 or UMT5 text encoder in transformers' form"
    return "no model that this package knows"
