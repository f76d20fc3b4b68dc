"""Planning grids as map_server files: a PGM picture and a YAML card beside it.

Format: the ROS package map_server (and nav2_map_server, mode `trinary`). The picture's first row is the
grid's last (north is up); 0 is occupied, 254 free, 205 unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image, UnidentifiedImageError

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.mapping.grid import FREE, OCCUPIED, UNKNOWN, PlanningGrid

PIXEL_OCCUPIED, PIXEL_UNKNOWN, PIXEL_FREE = 0, 205, 254
OCCUPIED_THRESH, FREE_THRESH = 0.65, 0.196  # map_server's defaults; 205 lies between them


def write_grid(grid: PlanningGrid, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.pgm and `path`.yaml (a suffix of `path` is replaced); returns both."""
    pgm_path, yaml_path = Path(path).with_suffix(".pgm"), Path(path).with_suffix(".yaml")
    pixels = np.full(grid.cells.shape, PIXEL_UNKNOWN, dtype=np.uint8)
    pixels[grid.cells == FREE] = PIXEL_FREE
    pixels[grid.cells == OCCUPIED] = PIXEL_OCCUPIED
    card = {
        "image": pgm_path.name,
        "mode": "trinary",
        "resolution": float(grid.resolution_m),
        "origin": [float(grid.origin_m[0]), float(grid.origin_m[1]), 0.0],
        "negate": 0,
        "occupied_thresh": OCCUPIED_THRESH,
        "free_thresh": FREE_THRESH,
    }
    with replacing(pgm_path) as temporary, writing_to(pgm_path):
        Image.fromarray(pixels[::-1]).save(temporary, format="PPM")
    with replacing(yaml_path) as temporary, writing_to(yaml_path):
        temporary.write_text(yaml.safe_dump(card, sort_keys=False, default_flow_style=None), encoding="utf-8")
    return pgm_path, yaml_path


def read_grid(path: str | Path) -> PlanningGrid:
    """Read a map_server YAML card and the image it names (beside it, not rotated)."""
    path = Path(path)
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable map card ({str(error).splitlines()[0]})") from error
    try:
        resolution_m = float(card["resolution"])
        x_m, y_m, yaw_rad = (float(value) for value in card["origin"])
        occupied_thresh, free_thresh = float(card["occupied_thresh"]), float(card["free_thresh"])
        is_negated = bool(card["negate"])
        picture = path.parent / str(card["image"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: want image, resolution, origin (x, y, yaw), negate, occupied_thresh and free_thresh"
        ) from error
    if yaw_rad != 0:
        raise InputError(f"{path}: origin has yaw {yaw_rad}: want 0, rotated grids are not supported")
    try:
        with Image.open(picture) as image:
            pixels = np.array(image.convert("L"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{picture}: not a readable picture, named by {path.name}") from error
    occupancy = (pixels if is_negated else 255 - pixels.astype(np.int64)) / 255
    cells = np.full(pixels.shape, UNKNOWN, dtype=np.int8)
    cells[occupancy > occupied_thresh] = OCCUPIED
    cells[occupancy < free_thresh] = FREE
    return PlanningGrid(cells=cells[::-1].copy(), resolution_m=resolution_m, origin_m=(x_m, y_m))
