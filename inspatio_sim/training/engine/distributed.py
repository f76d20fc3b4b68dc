"""Several processes that train one model, as torchrun starts them: who is who, sharded weights, shared numbers."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from inspatio_sim.errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of one run, seen from one of them. Every rank has to make the same calls in the same order."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """The rank that writes files and speaks to the person at the terminal."""
        return self.rank == 0

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over the ranks; a number that only some have, over those."""
        found: dict[str, list[float]] = {}
        for own in self.gather(dict(values)):
            for name, value in own.items():
                found.setdefault(name, []).append(value)
        return {name: sum(numbers) / len(numbers) for name, numbers in found.items()}

    def any(self, is_so: bool) -> bool:
        """Whether it is so on at least one rank."""
        if self.world_size == 1:
            return is_so
        count = torch.tensor(float(is_so), device=self.device)
        dist.all_reduce(count)
        return bool(count > 0)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank; small plain data."""
        if self.world_size == 1:
            return [value]
        values: list[T] = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every rank has come here."""
        if self.world_size > 1:
            dist.barrier()

    def wait_long(self) -> None:
        """Until every rank has come here, be it days: where one does work that the others need."""
        if self.world_size > 1:
            group: Any = dist.new_group(timeout=PATIENCE, backend="gloo")
            dist.barrier(group)
            dist.destroy_process_group(group)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes of torchrun (gloo on CPU, NCCL on CUDA); a single process without it.

    Args:
        device: "cpu" or "cuda"; under torchrun each process takes the CUDA device of its local rank.

    Raises:
        InputError: there is no such device for this process.
    """
    local_rank, world_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device not in ("cpu", "cuda"):
        raise InputError(f"device={device!r}: want cpu or cuda")
    if device == "cuda":
        num_devices = torch.cuda.device_count()
        if local_rank >= num_devices:
            raise InputError(
                f"device=cuda: process {local_rank} of this machine needs a GPU of its own, {num_devices} found"
            )
        torch.cuda.set_device(local_rank)
    here = torch.device("cpu") if device == "cpu" else torch.device("cuda", local_rank)
    if world_size == 1:
        yield Ranks(device=here)
        return
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    atexit.register(gc.collect)  # sharded modules hold the group in cycles; its threads must end before Python does
    try:
        mesh = init_device_mesh(device, (world_size,))
        yield Ranks(rank=dist.get_rank(), world_size=world_size, device=here, mesh=mesh)
    finally:
        dist.destroy_process_group()


def shard(module: nn.Module, entry_points: Iterable[str], ranks: Ranks) -> None:
    """Move a module to this rank's device and, with several ranks, split it over them (FSDP2).

    All ranks begin with rank 0's weights. The module is one group: its weights come together while one of its entry
    points runs and in its backward pass, and its gradients are averaged over the ranks there. Optimisers are to be
    built afterwards.

    Args:
        module: changed in place.
        entry_points: names of the methods through which it is called from outside.
        ranks: of the run.
    """
    module.to(ranks.device)
    if ranks.mesh is None:
        return
    module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  # FSDP2 takes no other
    for tensor in module.state_dict().values():
        dist.broadcast(tensor, src=0)
    fully_shard(module, mesh=ranks.mesh, reshard_after_forward=True)
    for name in entry_points:
        if name != "forward":
            register_fsdp_forward_method(module, name)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor, all of it, on every rank's device; every rank has to ask for it."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def gathered(tensor: Tensor, ranks: Ranks) -> Tensor:
    """A copy of the whole tensor on rank 0's CPU, its mere shape (`meta`) elsewhere; every rank has to ask for it."""
    full = whole(tensor)
    kept = torch.empty_like(full, device="cpu" if ranks.is_main else "meta", memory_format=torch.contiguous_format)
    return kept.copy_(full)


def split_like(full: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, split over the ranks as another of its shape is."""
    full = full.to(like.device)
    if isinstance(like, DTensor) and full.shape == like.shape:
        return distribute_tensor(full, like.device_mesh, like.placements)
    return full


def fill(tensor: Tensor, full: Tensor) -> None:
    """Overwrite a tensor, split or not, with a whole one."""
    with torch.no_grad():
        local(tensor).copy_(local(split_like(full, tensor)))
