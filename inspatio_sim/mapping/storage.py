"""Storage of the map: a hash of blocks of cells, bricks of point indices, a pool of points.

Three nested cubes, each eight to an edge: a block holds 8 x 8 x 8 occupancy cells; a cell with a surface
has a brick of 8 x 8 x 8 point cells (of fewer, if `MapConfig.points_per_edge` says so); a point cell holds
one merged point at most. All arrays grow by doubling, so the cost of an update depends on its frame, not on the
size of the map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import kernel

CELLS_PER_BLOCK = 512
POINTS_PER_BRICK = 512
EMPTY_KEY = np.int64(-1)
MAX_BLOCK_COORDINATE = 1 << 20  # 21 bits an axis in a key

UNSEEN, MADE_UP, FILMED = 0, 1, 2  # ranks of sources of a cell or point, not `Known`; a higher one wins

# Rows of `Storage.counts`
NUM_BLOCKS, NUM_BRICKS, NUM_POINTS, NUM_FREE_BRICKS, NUM_FREE_POINTS, FRAME = range(6)


class Storage(NamedTuple):
    """All arrays of the map. B blocks, K bricks and N points of capacity; `counts` says how many are in use."""

    table_key: NDArray[np.int64]  # open-addressing hash of block keys, -1 = empty. [C], C a power of two
    table_block: NDArray[np.int32]  # [C]
    block_key: NDArray[np.int64]  # packed block coordinates, in order of arrival. [B]
    log_odds: NDArray[np.float32]  # [B, 512]
    cell_source: NDArray[np.uint8]  # best source that has seen the cell. [B, 512]
    hit_frame: NDArray[np.int32]  # last frame with a surface in the cell. [B, 512]
    brick: NDArray[np.int32]  # the cell's brick, -1 = none. [B, 512]
    brick_point: NDArray[np.int32]  # rows in the pool, -1 = none. [K, 512]
    brick_count: NDArray[np.int32]  # points in the brick. [K]
    position_m: NDArray[np.float32]  # NaN = deleted. [N, 3]
    rgb_mean: NDArray[np.float32]  # 0..255. [N, 3]
    rgb_u8: NDArray[np.uint8]  # rgb_mean, rounded. [N, 3]
    confidence: NDArray[np.float32]  # pixels behind the point. [N]
    size_m: NDArray[np.float32]  # distance to the next pixel's point, in the closest look at it. [N]
    last_seen_s: NDArray[np.float32]  # [N]
    point_source: NDArray[np.uint8]  # [N]
    free_brick: NDArray[np.int32]  # stack of bricks to reuse. [K]
    free_point: NDArray[np.int32]  # stack of points to reuse. [N]
    counts: NDArray[np.int64]  # [6]


_BLOCK_ARRAYS = ("block_key", "log_odds", "cell_source", "hit_frame", "brick")
_BRICK_ARRAYS = ("brick_point", "brick_count", "free_brick")
_POINT_ARRAYS = (
    "position_m",
    "rgb_mean",
    "rgb_u8",
    "confidence",
    "size_m",
    "last_seen_s",
    "point_source",
    "free_point",
)
_TRAILING = {
    "log_odds": (CELLS_PER_BLOCK,), "cell_source": (CELLS_PER_BLOCK,), "hit_frame": (CELLS_PER_BLOCK,),
    "brick": (CELLS_PER_BLOCK,), "brick_point": (POINTS_PER_BRICK,), "position_m": (3,), "rgb_mean": (3,),
    "rgb_u8": (3,),
}  # fmt: skip
_DTYPES = {
    "block_key": np.int64, "log_odds": np.float32, "cell_source": np.uint8, "hit_frame": np.int32,
    "brick": np.int32, "brick_point": np.int32, "brick_count": np.int32, "free_brick": np.int32,
    "position_m": np.float32, "rgb_mean": np.float32, "rgb_u8": np.uint8, "confidence": np.float32,
    "size_m": np.float32, "last_seen_s": np.float32, "point_source": np.uint8, "free_point": np.int32,
}  # fmt: skip
_FILL = {"brick": -1, "brick_point": -1, "hit_frame": -1}


def empty_storage(num_blocks: int = 64, num_bricks: int = 256, num_points: int = 16_384) -> Storage:
    """An empty map with this initial capacity."""
    sizes = {name: num_blocks for name in _BLOCK_ARRAYS}
    sizes |= {name: num_bricks for name in _BRICK_ARRAYS} | {name: num_points for name in _POINT_ARRAYS}
    arrays = {name: _new(name, size) for name, size in sizes.items()}
    return _with_table(arrays, np.zeros(6, dtype=np.int64))


def grown(storage: Storage) -> Storage:
    """Double whichever arrays are more than half used, so that the insertion can continue."""
    counts = storage.counts
    arrays = {name: getattr(storage, name) for name in _DTYPES}
    for names, used in (
        (_BLOCK_ARRAYS, counts[NUM_BLOCKS]),
        (_BRICK_ARRAYS, counts[NUM_BRICKS]),
        (_POINT_ARRAYS, counts[NUM_POINTS]),
    ):
        capacity = len(arrays[names[0]])
        if 2 * used <= capacity:
            continue
        for name in names:
            larger = _new(name, 2 * capacity)
            larger[:capacity] = arrays[name]
            arrays[name] = larger
    if len(arrays["block_key"]) == len(storage.block_key):
        return storage._replace(**arrays)
    return _with_table(arrays, counts)


def state_of(storage: Storage) -> dict[str, NDArray[Any]]:
    """Copies of the arrays in use: everything `storage_from_state` needs to continue bit-exactly."""
    used = _used_rows(storage.counts)
    return {name: getattr(storage, name)[: used[name]].copy() for name in _DTYPES} | {"counts": storage.counts.copy()}


def storage_from_state(state: dict[str, NDArray[Any]]) -> Storage:
    """Put the arrays of `state_of` back; raises InputError on missing arrays and wrong shapes, types or indices."""
    counts = _checked(state, "counts", np.int64, (6,))
    if np.any(counts < 0):
        raise InputError(f"map state 'counts' is {counts.tolist()}: want nothing negative")
    used, owner_rows = _used_rows(counts), _owner_rows(counts)
    arrays = {}
    for name, dtype in _DTYPES.items():
        values = _checked(state, name, dtype, (used[name], *_TRAILING.get(name, ())))
        arrays[name] = _new(name, max(16, owner_rows[name]))
        arrays[name][: used[name]] = values
    for name, limit in (("brick", NUM_BRICKS), ("brick_point", NUM_POINTS), ("free_brick", NUM_BRICKS),
                        ("free_point", NUM_POINTS)):  # fmt: skip
        values = arrays[name][: used[name]]
        if values.size and not (values.min() >= -1 and values.max() < counts[limit]):
            raise InputError(f"map state {name!r} points outside the map: the file is damaged")
    return _with_table(arrays, counts.copy())


def _owner_rows(counts: NDArray[np.int64]) -> dict[str, int]:
    """Required rows of every array: the number of blocks, bricks or points."""
    rows = {name: int(counts[NUM_BLOCKS]) for name in _BLOCK_ARRAYS}
    rows |= {name: int(counts[NUM_BRICKS]) for name in _BRICK_ARRAYS}
    return rows | {name: int(counts[NUM_POINTS]) for name in _POINT_ARRAYS}


def _used_rows(counts: NDArray[np.int64]) -> dict[str, int]:
    """Rows in use of every array; free lists are shorter than their owners."""
    return _owner_rows(counts) | {
        "free_brick": int(counts[NUM_FREE_BRICKS]),
        "free_point": int(counts[NUM_FREE_POINTS]),
    }


def _checked(state: dict[str, NDArray[Any]], name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in state:
        raise InputError(f"map state has no array {name!r}: want the arrays from `state()`")
    values = np.asarray(state[name])
    if values.dtype != dtype or values.shape != shape:
        raise InputError(f"map state {name!r} is {values.dtype} {values.shape}: want {np.dtype(dtype).name} {shape}")
    return values


def _new(name: str, size: int) -> NDArray[Any]:
    return np.full((size, *_TRAILING.get(name, ())), _FILL.get(name, 0), dtype=_DTYPES[name])


def _with_table(arrays: dict[str, NDArray[Any]], counts: NDArray[np.int64]) -> Storage:
    """Build the hash from the block keys; at most half of it is used."""
    capacity = 1 << int(2 * len(arrays["block_key"]) - 1).bit_length()
    storage = Storage(
        table_key=np.full(capacity, EMPTY_KEY),
        table_block=np.zeros(capacity, dtype=np.int32),
        counts=counts,
        **arrays,
    )
    _fill_table(storage)
    return storage


@kernel
def pack_key(x, y, z):
    """One int64 of three block coordinates, each within +-2^20."""
    offset = np.int64(1 << 20)
    return ((np.int64(x) + offset) << 42) | ((np.int64(y) + offset) << 21) | (np.int64(z) + offset)


@kernel
def unpack_key(key):
    offset = np.int64(1 << 20)
    mask = np.int64((1 << 21) - 1)
    return (key >> 42) - offset, ((key >> 21) & mask) - offset, (key & mask) - offset


@kernel
def _table_row(storage, key):
    """The row that holds the key, or the empty one where it belongs."""
    mask = np.int64(len(storage.table_key) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: the high bits are well mixed
    row = np.int64(mixed >> np.uint64(32)) & mask
    while storage.table_key[row] != key and storage.table_key[row] != -1:
        row = (row + 1) & mask
    return row


@kernel
def find_block(storage, key):
    """Row of the block, -1 if the map has none."""
    row = _table_row(storage, key)
    return np.int64(storage.table_block[row]) if storage.table_key[row] == key else np.int64(-1)


@kernel
def find_or_add_block(storage, key):
    """Row of the block, created if new; -1 if there is no room."""
    row = _table_row(storage, key)
    if storage.table_key[row] == key:
        return np.int64(storage.table_block[row])
    block = storage.counts[NUM_BLOCKS]
    if block == len(storage.block_key):
        return np.int64(-1)
    storage.counts[NUM_BLOCKS] = block + 1
    storage.block_key[block] = key
    storage.table_key[row] = key
    storage.table_block[row] = block
    return block


@kernel
def _fill_table(storage):
    for block in range(storage.counts[NUM_BLOCKS]):
        row = _table_row(storage, storage.block_key[block])
        storage.table_key[row] = storage.block_key[block]
        storage.table_block[row] = block


@kernel
def new_brick(storage):
    """An empty brick, reused or new; -1 if there is no room."""
    if storage.counts[NUM_FREE_BRICKS] > 0:
        storage.counts[NUM_FREE_BRICKS] -= 1
        return np.int64(storage.free_brick[storage.counts[NUM_FREE_BRICKS]])
    brick = storage.counts[NUM_BRICKS]
    if brick == len(storage.brick_count):
        return np.int64(-1)
    storage.counts[NUM_BRICKS] = brick + 1
    return brick


@kernel
def new_point(storage):
    """A row of the pool, reused or new; -1 if there is no room."""
    if storage.counts[NUM_FREE_POINTS] > 0:
        storage.counts[NUM_FREE_POINTS] -= 1
        return np.int64(storage.free_point[storage.counts[NUM_FREE_POINTS]])
    point = storage.counts[NUM_POINTS]
    if point == len(storage.confidence):
        return np.int64(-1)
    storage.counts[NUM_POINTS] = point + 1
    return point
