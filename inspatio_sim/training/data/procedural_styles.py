"""What made-up scenes are covered with: palettes of finishes, each with the words a caption uses for it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.mipmap import texture_image
from inspatio_sim.scenes.photo_textures import PhotoTexture, bundled_photos, photos_in
from inspatio_sim.scenes.primitives import Material
from inspatio_sim.scenes.textures import Color, Drawable, Texture

Style = Literal["synthetic", "photo"]
Use = Literal["wall", "floor", "thing"]

LIGHT: Color = (0.95, 0.95, 0.95)
DARK: Color = (0.5, 0.5, 0.5)
PHOTO_CONTRASTS: dict[Use, tuple[float, ...]] = {  # of the cuttings of each photograph: walls are calmer than things
    "wall": (0.2, 0.45, 0.7),
    "floor": (0.3, 0.5, 0.8),
    "thing": (0.6, 0.8, 1.0),
}
TILE_M = {"wall": (1.2, 2.6), "floor": (1.0, 2.2), "thing": (0.4, 1.0)}
HUE_NAMES = ((15, "red"), (45, "orange"), (70, "yellow"), (160, "green"), (195, "teal"), (260, "blue"),
             (290, "purple"), (340, "pink"), (361, "red"))  # fmt: skip
BROWN_VALUE = 0.62  # darker orange is brown


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A material and how people would call it."""

    material: Material
    color: str
    pattern: str


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Textures to draw from, by use: (texture, its word)."""

    textures: dict[Use, Sequence[tuple[Drawable, str]]]

    def draw(self, rng: np.random.Generator, use: Use) -> Finish:
        """A texture in a random tint and size: walls and floors mostly pale, things colourful."""
        texture, pattern = self.textures[use][int(rng.integers(len(self.textures[use])))]
        strongest = 0.7 if use == "thing" else 0.35
        saturation = strongest * rng.random() ** (0.7 if use == "thing" else 1.5)
        tint = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.75, 1.0))
        size_m = float(rng.uniform(*TILE_M[use]))
        material = Material(texture=texture, tile_m=(size_m, size_m), tint=tint)
        red, green, blue = (float(mean * t) for mean, t in zip(_mean_color(texture), tint, strict=True))
        return Finish(material=material, color=color_word((red, green, blue)), pattern=pattern)


def palette(style: Style, texture_folder: Path | None = None) -> Palette:
    """The palette of a style.

    Args:
        style: "synthetic" is drawn patterns, "photo" is cuttings of photographs.
        texture_folder: a user's pictures, used beside the bundled ones by "photo".
    """
    if style == "synthetic":
        if texture_folder is not None:
            raise InputError(
                f"texture_folder {texture_folder} with style='synthetic': want style='photo', or no folder"
            )
        words = {"plaster": "plain", "bricks": "brick", "wallpaper": "papered", "tiles": "tiled", "planks": "planked",
                 "weave": "woven", "checker": "checkered", "wood": "wooden", "rug": "patterned"}  # fmt: skip
        uses: dict[Use, tuple[str, ...]] = {
            "wall": ("plaster", "bricks", "wallpaper", "tiles", "planks", "plaster"),
            "floor": ("planks", "tiles", "weave", "checker", "wood"),
            "thing": ("plaster", "wood", "weave", "checker", "rug", "wallpaper"),
        }
        return Palette(
            textures={
                use: [
                    (Texture(pattern=pattern, color_a=LIGHT, color_b=DARK, seed=seed), words[pattern])
                    for pattern in patterns
                    for seed in range(2)
                ]
                for use, patterns in uses.items()
            }
        )
    if style != "photo":
        raise InputError(f"style={style!r}: want 'synthetic' or 'photo'")
    photos = bundled_photos() | (photos_in(texture_folder) if texture_folder is not None else {})
    return Palette(
        textures={
            use: [
                (PhotoTexture(path=path, seed=seed, contrast=contrast), word)
                for path, word in photos.items()
                for seed, contrast in enumerate(contrasts)
            ]
            for use, contrasts in PHOTO_CONTRASTS.items()
        }
    )


def color_word(color: Color) -> str:
    """The everyday name of a colour."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    if value < 0.15:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.75 else "gray"
    name = next(name for end, name in HUE_NAMES if 360 * hue < end)
    return "brown" if name == "orange" and value < BROWN_VALUE else name


@lru_cache(maxsize=256)
def _mean_color(texture: Drawable) -> Color:
    red, green, blue = texture_image(texture).numpy().mean(axis=(0, 1)).tolist()
    return red, green, blue
