"""What a checkpoint is, told from the names and shapes of its tensors and the notes in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from inspatio_sim.checkpoints.files import Checkpoint
from inspatio_sim.checkpoints.keys import config_from_shapes, expected_shapes
from inspatio_sim.checkpoints.plan import shapes_by_canonical_name
from inspatio_sim.checkpoints.presets import PRESETS, Preset, WantedFile
from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.errors import InputError
from inspatio_sim.generators.star.config import LATENT_CHANNELS, StarConfig

PRESET_NOTE, STAR_NOTE, LICENCE_NOTE = "preset", "star_config", "licence"


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
    wanted = next((file for preset in PRESETS.values() for file in preset.files if _is_called(checkpoint, file)), None)
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
    """Whether these are the tensors of a preset's transformer, widened or not."""
    return shapes == expected_shapes(preset.star) or (
        preset.is_base and shapes == expected_shapes(replace(preset.star, in_channels=LATENT_CHANNELS))
    )


def stored_config(checkpoint: Checkpoint) -> StarConfig | None:
    """The sizes of a transformer, heads included: from the file's header, or those of the preset it fits.

    Raises:
        InputError: the header and the tensors disagree.
    """
    shapes = shapes_by_canonical_name(checkpoint)
    if STAR_NOTE not in checkpoint.metadata:
        return next((preset.star for preset in PRESETS.values() if fits(shapes, preset)), None)
    try:
        config = StarConfig(**json.loads(checkpoint.metadata[STAR_NOTE]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{checkpoint.path}: {STAR_NOTE} in its header cannot be used ({error})") from error
    if config.num_layers > len(shapes) or expected_shapes(config) != shapes:
        raise InputError(f"{checkpoint.path}: {STAR_NOTE} in its header does not describe its tensors")
    return config


def config_note(config: StarConfig) -> str:
    """What `stored_config` reads."""
    return json.dumps(asdict(config), sort_keys=True)


def _identify_star(checkpoint: Checkpoint, shapes: Mapping[str, Shape]) -> Identity:
    fitting = [preset for preset in PRESETS.values() if fits(shapes, preset)]
    try:
        sizes = config_from_shapes(shapes, num_heads=1, text_len=1)
    except InputError:
        return Identity(what="part of a video transformer", is_transformer=True)
    kind = "a STAR transformer" if sizes.in_channels > LATENT_CHANNELS else "a text-to-video transformer of Wan2.1"
    what = (
        f"{kind}: width {sizes.dim}, {sizes.num_layers} layers, feed-forward {sizes.ffn_dim}, "
        f"{sizes.in_channels} channels in"
    )
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
    return checkpoint.path.name in wanted.names and wanted.role != "text_encoder"


def _other_model(shapes: Mapping[str, Shape]) -> str:
    """Models that are not transformers of this package, by tensors that only they have."""
    decoder = shapes.get("decoder.1.weight", ())
    if len(decoder) == 4 and "decoder.22.weight" in shapes:
        return f"a TAEHV autoencoder: decoder width {decoder[0]}, {decoder[1]} latent channels"
    if "decoder.upsamples.0.residual.0.gamma" in shapes:
        return "the video autoencoder of Wan2.1, or of its form"
    if "token_embedding.weight" in shapes and "blocks.0.attn.q.weight" in shapes:
        return "a UMT5 text encoder in Wan's form"
    if "shared.weight" in shapes and "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        return "a T5 or UMT5 text encoder in transformers' form"
    return "no model that this package knows"
