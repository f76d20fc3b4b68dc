"""Floating-point operations, counted by torch while a network runs on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Config = TypeVar("Config", bound=Any)


def flop_of(run: Callable[[], object]) -> int:
    """Operations of matrix products, attention and convolutions; a multiply-add is two.

    Norms and activations are not counted: they are under one percent.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def flop_by_layers(config: Config, field: str, count: Callable[[Config], int]) -> int:
    """`count(config)` from networks of one layer and of two: further ones cost the same again.

    Args:
        config: of the network; a frozen dataclass.
        field: its number of layers.
        count: operations of a network with such a config.
    """
    one, two = (count(replace(config, **{field: num_layers})) for num_layers in (1, 2))
    return one + (getattr(config, field) - 1) * (two - one)
