"""Room for a generator: what a device has left, and a refusal that names the setting that would fit."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from inspatio_sim.errors import NotEnoughMemory

GB = 1e9

Change = tuple[str, Mapping[str, Any]]
"""How a setting is called, and the fields of a request that it changes."""


def check_room(
    needed: int,
    device: torch.device,
    *,
    batch: int,
    size_px: tuple[int, int],
    dtype: torch.dtype,
    setting: Callable[[int], str | None],
) -> None:
    """See that a device has room.

    Args:
        needed: bytes.
        device: where.
        batch: worlds at once.
        size_px: (height, width) of their frames.
        dtype: of weights and activations.
        setting: what would fit into so many bytes; None: nothing would.

    Raises:
        NotEnoughMemory: it has not. One line: what is needed, what is free, and the setting that would fit.
    """
    free = available_bytes(device)
    if needed <= free:
        return
    fitting = setting(free)
    worlds = "1 world" if batch == 1 else f"{batch} worlds"
    raise NotEnoughMemory(
        f"{worlds} of {size_px[0]}x{size_px[1]} px in {str(dtype).removeprefix('torch.')} on {device}: "
        f"need {needed / GB:.2f} GB, {free / GB:.2f} GB are free: "
        + (f"use {fitting}" if fitting else "no smaller batch, size or preset would fit either")
    )


def fitting_setting(
    fits: Callable[[Mapping[str, Any]], bool], cheap: Iterable[Change], batch: int, *dear: Iterable[Change]
) -> str | None:
    """The first setting that fits, in the order of what it costs the user; None: none does.

    Each is tried by itself, then together with what costs less: all of `cheap`, and a batch of one.

    Args:
        fits: whether a request with these changes would; with more changes it needs no more.
        cheap: settings that lose time or precision only.
        batch: worlds at once; fewer are tried next.
        *dear: further kinds of settings, each in the order of what it needs, the most first.
    """
    kept: dict[str, Any] = {}
    names: list[str] = []
    for name, changes in cheap:
        if fits(changes):
            return name
        kept |= changes
        names.append(name)
        if fits(kept):
            return ", ".join(names)
    batches: list[Change] = [(f"batch={fewer}", {"batch": fewer}) for fewer in range(batch - 1, 0, -1)]
    for kind in map(list, (batches, *dear)):
        first = bisect_left(kind, True, key=lambda change: fits(kept | change[1]))
        if first < len(kind):
            name, changes = kind[first]
            return name if fits(changes) else ", ".join([*names, name])
        if kind == batches and batches:
            kept |= {"batch": 1}
            names.append("batch=1")
    return None


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device: a GPU's free memory, or the machine's within its limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # this process may reuse it
        return torch.cuda.mem_get_info(device)[0] + unused
    return host_available_bytes()


def host_available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Main memory that can still be taken: the system's, or what a control group (a container) leaves, if less."""
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = 1024 * int(rows["MemAvailable"].split()[0])
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_cgroup_room(proc, cgroups)])


def _cgroup_room(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each group above this process leaves (control groups, version 2); files read once can be given up."""
    own = proc / "self" / "cgroup"
    entries = own.read_text().splitlines() if own.is_file() else []
    inner = next((entry[3:].strip("/") for entry in entries if entry.startswith("0::")), "")
    folder = cgroups / inner
    for group in (folder, *folder.parents[: len(Path(inner).parts)]):
        limit, current = group / "memory.max", group / "memory.current"
        if limit.is_file() and current.is_file() and limit.read_text().strip() != "max":
            stat = group / "memory.stat"
            rows = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
            used = int(current.read_text()) - int(rows.get("inactive_file", 0))
            yield max(0, int(limit.read_text()) - used)
