"""Planned memory: the tensors that a frame really takes, counted without computing them; refusals that help."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from inspatio_sim.errors import InputError, NotEnoughMemory
from inspatio_sim.generators.blocks import memory
from inspatio_sim.generators.frame.load import load_frame
from inspatio_sim.generators.frame.memory import TOKEN_WIDTHS, MemoryRequest, check_fits
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.options import FrameOptions
from inspatio_sim.generators.presets.registry import frame_preset
from tests.peak_bytes import PeakBytes

XL = MemoryRequest(preset=frame_preset("worldfm-2step"), size_px=(512, 512), batch=1, dtype=torch.float32)
CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "latents"), [("worldfm-2step", (64, 64)), ("frame-tiny", (12, 20))])
def test_a_transformer_holds_as_much_as_planned(name, latents):
    config = replace(frame_preset(name).frame, depth=2)
    with FakeTensorMode(), torch.no_grad():
        network = FrameTransformer(config)
        x = torch.empty(2, config.in_channels, *latents)
        condition = torch.empty(2, config.in_channels + config.mask_channels, *latents)
        time = network.modulation(torch.tensor([999]))
        with PeakBytes() as live:
            network.denoise(x, time, condition, condition)
    num_tokens = 2 * 3 * config.tokens_of(*latents)
    assert 0.8 * TOKEN_WIDTHS < live.peak / (4 * num_tokens * config.hidden_size) <= 1.15 * TOKEN_WIDTHS


def test_the_plan_grows_with_what_is_asked_for():
    pytest.importorskip("diffusers")
    weights = 4 * (614_600_864 + 83_653_863)
    one, two = XL.num_bytes - weights, replace(XL, batch=2).num_bytes - weights
    assert one > 0
    assert two == 2 * one
    assert replace(XL, dtype=torch.bfloat16).num_bytes == XL.num_bytes / 2
    assert replace(XL, size_px=(1024, 512)).num_bytes - weights == 2 * one
    with pytest.raises(InputError, match="batch=0: want 1 or more"):
        replace(XL, batch=0)


@pytest.mark.parametrize(
    ("request_changes", "free_gb", "setting"),
    [
        ({}, 2.5, "use dtype=bfloat16"),
        ({"batch": 3}, 2.5, "use dtype=bfloat16, batch=2"),
        ({"dtype": torch.bfloat16, "batch": 3}, 2.5, "use batch=2"),
        ({}, 1.0, "use preset=frame-tiny"),
        ({}, 0.001, "no smaller batch, size or preset would fit either"),
    ],
)
def test_what_does_not_fit_says_what_would(monkeypatch, request_changes, free_gb, setting):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(memory, "available_bytes", lambda device: int(free_gb * 1e9))
    with pytest.raises(NotEnoughMemory, match=rf"of 512x512 px in .* on cpu: need .*are free: {setting}$"):
        check_fits(replace(XL, **request_changes), CPU)
    monkeypatch.setattr(memory, "available_bytes", lambda device: int(20e9))
    check_fits(replace(XL, **request_changes), CPU)


def test_loading_asks_first(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**6)
    with pytest.raises(NotEnoughMemory, match="2 worlds of 96x160 px"):
        load_frame(FrameOptions(weights=tmp_path, device="cpu"), size_px=(96, 160), batch=2)
