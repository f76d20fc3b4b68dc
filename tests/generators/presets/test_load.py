"""Weights into modules: the same bits whatever the form, nothing loaded from a bad file, memory needed once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.load import load_weights
from tests.checkpoints.small import SMALL, SMALL_BASE, meta_module, random_tensors, write

PREFIXES = ("", "model.", "module.generator.")


@pytest.mark.parametrize("form", ["safetensors", "pth", "shards", "index"])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip(tmp_path, form, prefix, dtype):
    tensors = random_tensors(dtype=dtype)
    path = write({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path, form)
    module = meta_module()
    load_weights(module, path)
    loaded = module.state_dict()
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_loaded_weights_do_not_depend_on_the_file(tmp_path):
    tensors = random_tensors()
    path = write(tensors, tmp_path, "safetensors")
    module = meta_module()
    load_weights(module, path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(module.state_dict()["head.modulation"], tensors["head.modulation"])


def test_casting_is_torchs(tmp_path):
    tensors = random_tensors()
    path = write(tensors, tmp_path, "pth")
    module = meta_module()
    load_weights(module, path, dtype=torch.bfloat16)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, tensors[name].bfloat16())
    with pytest.raises(InputError, match="dtype"):
        load_weights(module, path, dtype=torch.float64)


def test_progress_runs_to_the_end(tmp_path):
    shares = []
    load_weights(
        meta_module(), write(random_tensors(), tmp_path, "pth"), progress=lambda what, share: shares.append(share)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_base_is_widened_when_asked(tmp_path):
    base = random_tensors(SMALL_BASE)
    path = write(base, tmp_path, "safetensors")
    module = meta_module()
    with pytest.raises(CheckpointMismatch, match="text-to-video transformer of Wan2.1"):
        load_weights(module, path)
    load_weights(module, path, widen=True)
    weight = module.state_dict()["patch_embedding.weight"]
    assert torch.equal(weight[:, :16], base["patch_embedding.weight"])
    assert not weight[:, 16:].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_numbers_that_are_none_are_found_and_nothing_is_loaded(tmp_path, bad, form):
    tensors = random_tensors(dtype=torch.bfloat16)
    tensors["blocks.1.ffn.0.weight"][3, 5] = bad
    module = meta_module()
    with pytest.raises(InputError, match="blocks.1.ffn.0.weight holds NaN or infinity"):
        load_weights(module, write(tensors, tmp_path, form))
    assert all(parameter.is_meta for parameter in module.parameters())


def test_numbers_too_large_for_float16(tmp_path):
    tensors = random_tensors()
    tensors["head.modulation"][0] = 1e6
    with pytest.raises(InputError, match="head.modulation has numbers too large for torch.float16: want bfloat16"):
        load_weights(meta_module(), write(tensors, tmp_path, "safetensors"), dtype=torch.float16)


def test_a_mismatch_says_what_the_file_is(tmp_path):
    tensors = random_tensors()
    del tensors["head.modulation"]
    module = meta_module()
    with pytest.raises(CheckpointMismatch, match="1 missing .head.modulation.*STAR transformer: width 96, 2 layers"):
        load_weights(module, write(tensors, tmp_path, "pth"))
    assert all(parameter.is_meta for parameter in module.parameters())
    with pytest.raises(CheckpointMismatch, match="no model that this package knows"):
        load_weights(module, write({"x": torch.ones(1)}, tmp_path / "other", "safetensors"))


def test_buffers_are_filled_and_names_like_prefixes_kept(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(3, 2)
            self.model.register_buffer("mean", torch.full((3,), 0.25))

    source = Net()
    path = write(source.state_dict(), tmp_path, "safetensors")
    with torch.device("meta"):
        module = Net()
    load_weights(module, path)
    assert torch.equal(module.state_dict()["model.mean"], torch.full((3,), 0.25))


MEASURE = """
import sys
import torch
from torch import nn
from inspatio_sim.generators.presets.load import load_weights

def peak_kb():  # not ru_maxrss, which begins with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

with torch.device("meta"):
    module = nn.Sequential(*[nn.Linear(1024, 1024, bias=False) for _ in range(48)])
torch.ones(8, 8) @ torch.ones(8, 8)
before = peak_kb()
load_weights(module, sys.argv[1])
print(peak_kb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("form", ["safetensors", "pth", "shards"])
def test_memory_is_needed_once(tmp_path, form):
    tensors = {f"{i}.weight": torch.randn(1024, 1024) for i in range(48)}
    size_kb = sum(tensor.nbytes for tensor in tensors.values()) / 1024
    path = write(tensors, tmp_path, form)
    result = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    assert size_kb * 0.9 < int(result.stdout) < size_kb * 1.5


def test_the_real_transformer_has_these_names():
    model = pytest.importorskip("inspatio_sim.generators.star.model")
    with torch.device("meta"):
        network = model.StarTransformer(SMALL)
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == {
        name: tensor.shape for name, tensor in meta_module().state_dict().items()
    }
