"""Converted files: the same numbers, names without prefixes, notes on the origin, the same bytes every time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets.convert import convert
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.generators.presets.identify import config_note, stored_config, stored_frame_config
from inspatio_sim.generators.presets.load import load_weights
from inspatio_sim.generators.presets.registry import frame_preset, star_preset
from tests.checkpoints.small import SMALL, SMALL_BASE, meta_module, random_tensors, write
from tests.generators.presets.test_plan import to_diffusers

SMALL_PRESET = replace(star_preset("inspatio-1.3b-v1.5"), name="small", star=SMALL)
SMALL_BASE_PRESET = replace(star_preset("wan-t2v-1.3b"), name="small-base", star=SMALL)


@pytest.mark.parametrize("form", ["safetensors", "pth", "shards", "index"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.generator."])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16, torch.float32])
def test_a_transformer_keeps_its_numbers(tmp_path, form, prefix, dtype):
    tensors = random_tensors()
    path = write({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "in", form)
    out = tmp_path / "out.safetensors"
    notes = convert(path, SMALL_PRESET, out, dtype=dtype)
    written = load_file(out)  # the library's own reader
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(written[name], tensor.to(dtype or torch.float32))
    with open_checkpoint(out) as checkpoint:
        assert checkpoint.metadata == notes
        assert stored_config(checkpoint) == SMALL
    assert notes["preset"] == "small"
    assert notes["licence"] == SMALL_PRESET.wanted("transformer").licence
    assert (prefix in notes["changes"]) if prefix else "prefix" not in notes["changes"]
    load_weights(meta_module(), out)


@pytest.mark.parametrize("rename", [str, to_diffusers])
def test_a_base_is_widened(tmp_path, rename):
    base = random_tensors(SMALL_BASE)
    path = write({rename(name): tensor for name, tensor in base.items()}, tmp_path / "in", "safetensors")
    out = tmp_path / "out.safetensors"
    assert "96x16x1x2x2 -> 96x36x1x2x2" in convert(path, SMALL_BASE_PRESET, out)["changes"]
    written = load_file(out)
    assert torch.equal(written["patch_embedding.weight"][:, :16], base["patch_embedding.weight"])
    assert not written["patch_embedding.weight"][:, 16:].any()
    load_weights(meta_module(), out)
    with pytest.raises(CheckpointMismatch, match="cannot become small: it is a text-to-video transformer"):
        convert(path, SMALL_PRESET, out)


def test_any_tensors_as_they_are(tmp_path):
    tensors = {
        "model.x": torch.randn(3, 4).T,
        "model.y": torch.tensor(2.0, dtype=torch.bfloat16),
        "model.z": torch.ones(0),
    }
    torch.save({"state_dict": tensors}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", None, tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert written[name].dtype == tensor.dtype
        assert torch.equal(written[name], tensor)


def test_the_same_source_gives_the_same_bytes(tmp_path):
    tensors = random_tensors()
    path = write(tensors, tmp_path / "in", "pth")
    for name in ("a", "b"):
        convert(path, SMALL_PRESET, tmp_path / f"{name}.safetensors", dtype=torch.bfloat16)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_may_be_converted_onto_itself(tmp_path):
    path = write(random_tensors(), tmp_path, "safetensors")
    convert(path, SMALL_PRESET, path, dtype=torch.bfloat16)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(path).values())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_fails_leaves_nothing_and_what_stood_there_stays(tmp_path):
    tensors = random_tensors()
    tensors["head.head.bias"][1] = float("nan")  # late in the file
    path = write(tensors, tmp_path / "in", "safetensors")
    out = tmp_path / "out" / "new.safetensors"
    with pytest.raises(InputError, match="head.head.bias holds NaN"):
        convert(path, SMALL_PRESET, out)
    assert not out.parent.exists()
    out.parent.mkdir()
    out.write_text("precious")
    with pytest.raises(InputError, match="head.head.bias holds NaN"):
        convert(path, SMALL_PRESET, out)
    assert out.read_text() == "precious"
    assert [file.name for file in out.parent.iterdir()] == ["new.safetensors"]


def test_places_that_cannot_be_written_to(tmp_path):
    path = write(random_tensors(), tmp_path / "in", "safetensors")
    with pytest.raises(InputError, match="ends with .safetensors"):
        convert(path, None, tmp_path / "out.pth")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        convert(path, None, tmp_path / "file" / "out.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        convert(path, None, tmp_path / "folder.safetensors")


LARGE = config_note(replace(SMALL, num_layers=10**9))


def test_notes_in_a_header_that_are_not_to_be_believed(tmp_path):
    for note in ("{", '{"dim": 3}', "[]", LARGE):
        path = tmp_path / "a.safetensors"
        tensors = {"x": torch.ones(1)}
        write_safetensors(path, {"x": ((1,), torch.float32)}, tensors.__getitem__, {"star_config": note})
        with open_checkpoint(path) as checkpoint, pytest.raises(InputError, match="star_config in its header"):
            stored_config(checkpoint)
    out = tmp_path / "out.safetensors"
    convert(
        write(random_tensors(), tmp_path / "in", "pth"), replace(SMALL_PRESET, star=replace(SMALL, num_heads=2)), out
    )
    with open_checkpoint(out) as checkpoint:
        assert stored_config(checkpoint) == replace(SMALL, num_heads=2)  # which leaves no trace in the shapes


SMALL_FRAME = FrameConfig(input_size=8, hidden_size=48, depth=2, num_heads=4, model_max_length=3, caption_channels=16)
SMALL_FRAME_PRESET = replace(frame_preset("worldfm-2step"), name="small", frame=SMALL_FRAME)


@pytest.mark.parametrize("positions", ["as they are", "missing", "of another size"])
def test_a_frame_transformer_is_converted_once_and_loads_as_before(tmp_path, positions):
    torch.manual_seed(0)
    source = FrameTransformer(SMALL_FRAME)
    tensors = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    if positions != "as they are":
        del tensors["module.pos_embed"]
    if positions == "of another size":
        tensors["module.pos_embed"] = torch.zeros(1, 4, 48)
    path = tmp_path / "last.pth"
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    notes = convert(path, SMALL_FRAME_PRESET, tmp_path / "out.safetensors")
    assert "prefix module. taken off" in notes["changes"]
    assert ("pos_embed left out" in notes["changes"]) == (positions == "of another size")
    with open_checkpoint(tmp_path / "out.safetensors") as checkpoint:
        assert stored_frame_config(checkpoint) == SMALL_FRAME
        assert ("pos_embed" in checkpoint.tensors) == (positions == "as they are")
    for file in (path, tmp_path / "out.safetensors"):
        with torch.device("meta"):
            module = FrameTransformer(SMALL_FRAME)
        load_weights(module, file)
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, source.state_dict()[name]), name
    with pytest.raises(CheckpointMismatch, match="cannot become small: it is a frame transformer of WorldFM: width 48"):
        convert(path, SMALL_PRESET, tmp_path / "star.safetensors")


def test_extra_and_missing_tensors_of_a_frame_transformer_are_refused(tmp_path):
    tensors = FrameTransformer(SMALL_FRAME).state_dict()
    torch.save({**tensors, "optimizer": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointMismatch, match="1 extra .optimizer"):
        convert(tmp_path / "more.pth", SMALL_FRAME_PRESET, tmp_path / "out.safetensors")
    del tensors["blocks.1.cross_attn.proj.bias"]
    torch.save(tensors, tmp_path / "less.pth")
    with pytest.raises(CheckpointMismatch, match="1 missing .blocks.1.cross_attn.proj.bias"):
        convert(tmp_path / "less.pth", SMALL_FRAME_PRESET, tmp_path / "out.safetensors")
