"""Reading the map: log-odds at points, lists of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.kernels import kernel
from inspatio_sim.mapping.storage import NUM_BLOCKS, UNSEEN, Storage, find_block, pack_key, unpack_key


@kernel
def cell_at(storage, x, y, z):
    """Block row and cell of integer cell coordinates; block -1 if the map has none."""
    block = find_block(storage, pack_key(x >> 3, y >> 3, z >> 3))
    return block, ((x & 7) << 6) | ((y & 7) << 3) | (z & 7)


@kernel
def log_odds_at(storage, points_m, cell_m):
    """Log-odds of the cells that hold the points, NaN where unseen. [N]"""
    result = np.empty(len(points_m), dtype=np.float32)
    limit = np.float64(1 << 22)
    for i in range(len(points_m)):
        result[i] = np.nan
        x, y, z = points_m[i, 0] / cell_m, points_m[i, 1] / cell_m, points_m[i, 2] / cell_m
        if not (abs(x) < limit and abs(y) < limit and abs(z) < limit):
            continue
        block, cell = cell_at(storage, np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z)))
        if block >= 0 and storage.cell_source[block, cell] != UNSEEN:
            result[i] = storage.log_odds[block, cell]
    return result


def cells_where(storage: Storage, *, is_occupied: bool) -> NDArray[np.int64]:
    """Integer coordinates of the occupied cells (or of the free ones), in order of arrival. [M, 3]"""
    log_odds = storage.log_odds[: storage.counts[NUM_BLOCKS]]
    block, cell = np.nonzero((log_odds > 0) if is_occupied else (log_odds < 0))
    corner = np.stack(unpack_key.py_func(storage.block_key[block]), axis=-1)
    return 8 * corner + np.stack([cell >> 6, (cell >> 3) & 7, cell & 7], axis=-1)
