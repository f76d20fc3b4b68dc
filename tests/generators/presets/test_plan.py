"""From a file's tensors to a model's: diffusers' names, widening, the published autoencoder's extra channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.plan import plan, widen_patch_embedding
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import star_1_3b
from inspatio_sim.generators.presets.wan_names import from_diffusers, is_diffusers
from tests.checkpoints.small import SMALL, SMALL_BASE, random_tensors, write

# The documented way from Wan's names to diffusers': replacements one after another, in this order.
TO_DIFFUSERS = (
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
    ("modulation", "scale_shift_table"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("norm2", "norm__placeholder"),
    ("norm3", "norm2"),
    ("norm__placeholder", "norm3"),
    *((f"self_attn.{layer}", f"attn1.to_{layer}") for layer in "qkv"),
    *((f"cross_attn.{layer}", f"attn2.to_{layer}") for layer in "qkv"),
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("self_attn.norm", "attn1.norm"),
    ("cross_attn.norm", "attn2.norm"),
)


def to_diffusers(name: str) -> str:
    for wan, diffusers in TO_DIFFUSERS:
        name = name.replace(wan, diffusers)
    return name


def test_every_name_of_diffusers_becomes_wans():
    names = list(expected_shapes(star_1_3b()))
    theirs = [to_diffusers(name) for name in names]
    assert theirs[names.index("blocks.7.norm3.weight")] == "blocks.7.norm2.weight"
    assert theirs[names.index("blocks.7.modulation")] == "blocks.7.scale_shift_table"
    assert [from_diffusers(name) for name in theirs] == names
    assert is_diffusers(theirs)
    assert not is_diffusers(names)


def test_a_file_with_diffusers_names_is_read_as_wans(tmp_path):
    tensors = random_tensors()
    path = write({to_diffusers(name): tensor for name, tensor in tensors.items()}, tmp_path, "safetensors")
    with open_checkpoint(path) as checkpoint:
        planned = plan(checkpoint, expected_shapes(SMALL))
        assert planned.entries.keys() == tensors.keys()
        for name, entry in planned.entries.items():
            assert torch.equal(entry.read(checkpoint), tensors[name])
        assert "diffusers" in planned.changes[0]


def test_no_tensor_hides_behind_another_ones_new_name(tmp_path):
    tensors = {to_diffusers(name): tensor for name, tensor in random_tensors().items()}
    tensors["blocks.0.norm3.weight"] = torch.zeros(96)  # which norm2 becomes
    with open_checkpoint(write(tensors, tmp_path, "safetensors")) as checkpoint, pytest.raises(CheckpointMismatch):
        plan(checkpoint, expected_shapes(SMALL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_widened_embedding_computes_what_the_base_did(dtype):
    """Bit for bit, whatever render and mask are."""
    base = nn.Conv3d(16, 96, (1, 2, 2), (1, 2, 2), dtype=dtype)
    wide = nn.Conv3d(36, 96, (1, 2, 2), (1, 2, 2), dtype=dtype)
    wide.load_state_dict({"weight": widen_patch_embedding(base.weight.detach(), 36), "bias": base.bias})
    video = torch.randn(1, 36, 3, 8, 12, dtype=dtype)
    assert torch.equal(wide.weight[:, :16], base.weight)
    assert torch.count_nonzero(wide.weight[:, 16:]) == 0
    assert torch.allclose(
        wide(video).float(), base(video[:, :16]).float(), atol=1e-6 if dtype == torch.float32 else 2e-2
    )


def test_only_a_base_is_widened(tmp_path):
    for shape in [(96, 36, 1, 2, 2), (96, 16), (96, 20, 1, 2, 2)]:
        with pytest.raises(InputError, match="text-to-video"):
            widen_patch_embedding(torch.zeros(shape), 36)
    base = random_tensors(SMALL_BASE)
    with open_checkpoint(write(base, tmp_path, "pth")) as checkpoint:
        with pytest.raises(CheckpointMismatch, match="96x16x1x2x2, want 96x36x1x2x2"):
            plan(checkpoint, expected_shapes(SMALL))
        planned = plan(checkpoint, expected_shapes(SMALL), widen=True)
        weight = planned.entries["patch_embedding.weight"].read(checkpoint)
        assert torch.equal(weight[:, :16], base["patch_embedding.weight"])
        assert planned.changes == ("patch_embedding.weight: 96x16x1x2x2 -> 96x36x1x2x2",)


def test_a_longer_time_growth_keeps_its_last_frame(tmp_path):
    """As the published autoencoder's own loader does."""
    weight = torch.randn(64, 32, 1, 1)
    with open_checkpoint(write({"decoder.7.conv.weight": weight}, tmp_path, "safetensors")) as checkpoint:
        planned = plan(checkpoint, {"decoder.7.conv.weight": (32, 32, 1, 1)})
        assert torch.equal(planned.entries["decoder.7.conv.weight"].read(checkpoint), weight[32:])
        with pytest.raises(CheckpointMismatch, match="another shape"):
            plan(checkpoint, {"decoder.7.conv.weight": (48, 32, 1, 1)})


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_other_than_floats_are_refused_by_name(tmp_path, dtype, form):
    path = write({"x": torch.ones(2), "y": torch.ones(2).to(dtype)}, tmp_path, form)
    with (
        open_checkpoint(path) as checkpoint,
        pytest.raises(InputError, match="y is .*: want bfloat16, float16, float32"),
    ):
        plan(checkpoint, {"x": (2,), "y": (2,)})
