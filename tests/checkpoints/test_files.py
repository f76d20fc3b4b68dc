"""Files of weights: every form lists the same tensors, nothing is read by listing, and bad files are one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from inspatio_sim.checkpoints.files import checkpoint_paths, open_checkpoint
from inspatio_sim.checkpoints.tensors import shapes_of
from inspatio_sim.errors import InputError
from tests.checkpoints.small import write, write_hollow

TENSORS = {
    "blocks.0.weight": torch.arange(12.0).reshape(3, 4),
    "blocks.0.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scale": torch.tensor(3.0, dtype=torch.float16),
    "x": torch.ones(1),
}
FORMS = ("safetensors", "pth", "pt", "shards", "index")


def read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)


def refused(path: Path, *parts: str) -> str:
    with pytest.raises(InputError) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_tensors(tmp_path, form):
    with open_checkpoint(write(TENSORS, tmp_path, form)) as checkpoint:
        assert shapes_of(checkpoint.tensors) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
        for name, tensor in TENSORS.items():
            assert checkpoint.tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
            found = checkpoint.read(name)
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)


@pytest.mark.parametrize("form", ["safetensors", "shards", "index"])
def test_listing_reads_headers_only(tmp_path, form):
    """More gigabytes than any machine has memory are listed at once: the files are hollow."""
    path = write({"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4)}, tmp_path, form)
    size = (2**20, 2**20)
    for file in tmp_path.glob("*.safetensors"):
        with open_checkpoint(file) as one:
            names = list(next(part for part in one.parts if part.path == file).tensors)
        write_hollow(file, dict.fromkeys(names, size))
    with open_checkpoint(path) as checkpoint:
        assert shapes_of(checkpoint.tensors) == dict.fromkeys("abc", size)
        assert checkpoint.num_bytes > 12 * 2**40


def test_a_shard_stands_for_its_set(tmp_path):
    write(TENSORS, tmp_path, "shards")
    with open_checkpoint(tmp_path / "model-00002-of-00003.safetensors") as checkpoint:
        assert checkpoint.tensors.keys() == TENSORS.keys()
        assert len(checkpoint.files) == 3
    write(TENSORS, tmp_path, "index")
    assert checkpoint_paths(tmp_path) == [tmp_path / "model.safetensors.index.json"]


@pytest.mark.parametrize("wrapper", ["generator", "generator_ema", "state_dict", "model_state_dict", "model"])
def test_weights_in_a_training_checkpoint_are_found(tmp_path, wrapper):
    torch.save({wrapper: TENSORS, "step": 7, "critic": {"x": torch.zeros(1)}}, tmp_path / "a.pth")
    torch.save({"state_dict": {wrapper: TENSORS}}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert checkpoint.tensors.keys() == TENSORS.keys()


def test_averaged_weights_are_taken_before_the_last_ones(tmp_path):
    torch.save({"generator": {"x": torch.zeros(1)}, "generator_ema": {"x": torch.ones(1)}}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.read("x") == 1


def test_a_view_in_a_torch_file_is_read_as_it_was_saved(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"t": whole.T, "row": whole[2], "copy": whole}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert torch.equal(checkpoint.read("t"), whole.T)
        assert checkpoint.read("t").is_contiguous()
        assert torch.equal(checkpoint.read("row"), whole[2])


# Bad files


class Bomb:
    """A pickle that runs a command when it is loaded as pickles are."""

    def __init__(self, proof: Path) -> None:
        self.command = f"touch {proof}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.pt", "bomb.safetensors"])
@pytest.mark.parametrize("inside", ["pickle", "torch", "state dict"])
def test_code_in_a_file_never_runs(tmp_path, name, inside):
    proof, path = tmp_path / "ran", tmp_path / name
    if inside == "pickle":
        path.write_bytes(pickle.dumps(Bomb(proof)))
    else:
        torch.save(Bomb(proof) if inside == "torch" else {"state_dict": {"x": Bomb(proof)}}, path)
    refused(path, str(path))
    assert not proof.exists()
    if inside != "pickle":  # the bomb was live
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
        assert proof.exists()


def test_truncated_files(tmp_path):
    for form in ("safetensors", "pth"):
        path = write(TENSORS, tmp_path, form)
        data = path.read_bytes()
        for size in (1, 7, 8, 40, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            refused(path, str(path))
        path.write_bytes(b"")
        refused(path, "is empty")


def safetensors_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"{}",
        [],
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},  # shape and offsets disagree
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},  # a hole
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "xy"},  # twice the same data
        {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
        {"x": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}},
    ],
)  # fmt: skip
def test_tampered_headers(tmp_path, header):
    refused(safetensors_file(tmp_path / "a.safetensors", header, b"\0" * 4), "a.safetensors")


def test_a_header_longer_than_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(path, "damaged")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_an_error_or_other_numbers(tmp_path, data):
    form = data.draw(st.sampled_from(["safetensors", "pth"]))
    path = write(TENSORS, tmp_path, form)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_all(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_only_floats_are_read(tmp_path):
    refused(write({"x": torch.ones(2, dtype=torch.int64)}, tmp_path, "safetensors"), "x is int64")


def test_a_missing_shard_is_named(tmp_path):
    for form in ("shards", "index"):
        path = write(TENSORS, tmp_path / form, form)
        (tmp_path / form / "model-00002-of-00003.safetensors").unlink()
        refused(path, "1 of 3 shards are missing", "model-00002-of-00003.safetensors")


@pytest.mark.parametrize(
    "target", ["../secret.safetensors", "/etc/secret.safetensors", "a\\b.safetensors", "x.pth", ""]
)
def test_an_index_stays_in_its_folder(tmp_path, target):
    save_file({"x": torch.ones(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": target}}))
    refused(index, "beside the index")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"x": 3}}', "[" * 100_000, "\xff"]
)
def test_a_bad_index(tmp_path, text):
    index = tmp_path / "m.safetensors.index.json"
    index.write_bytes(text.encode("latin-1"))
    refused(index, "m.safetensors.index.json")


def test_an_index_and_its_shards_must_agree(tmp_path):
    index = write(TENSORS, tmp_path, "index")
    weight_map = json.loads(index.read_text())["weight_map"]
    for change in ({"extra": "model-00001-of-00003.safetensors"}, {"scale": "model-00001-of-00003.safetensors"}):
        index.write_text(json.dumps({"weight_map": {**weight_map, **change}}))
        refused(index, next(iter(change)))
    index.write_text(json.dumps({"weight_map": {name: file for name, file in weight_map.items() if name != "x"}}))
    refused(index, "x is in")


def test_one_tensor_in_two_shards(tmp_path):
    for number in (1, 2):
        save_file({"x": torch.ones(1)}, tmp_path / f"m-{number:05d}-of-00002.safetensors")
    refused(tmp_path, "more than one shard")


def test_folders_and_names(tmp_path):
    refused(tmp_path, "holds none")
    refused(tmp_path / "nowhere.safetensors", "no such file")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "want a file called")
    write(TENSORS, tmp_path, "safetensors")
    write(TENSORS, tmp_path, "pth")
    refused(tmp_path, "2 checkpoints", "name the file")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "holds none")


def test_a_file_must_be_what_it_is_called(tmp_path):
    path = write(TENSORS, tmp_path, "safetensors")
    refused(path.rename(tmp_path / "a.pth"), "is a safetensors file")
    path = write(TENSORS, tmp_path, "pth")
    refused(path.rename(tmp_path / "a.safetensors"), "is a torch file")


def test_a_pointer_of_git_lfs_is_recognised(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(path, "git lfs pull")


def zipped(path: Path, compression: int) -> Path:
    source = io.BytesIO()
    torch.save(TENSORS, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return path


def test_other_zip_archives(tmp_path):
    refused(zipped(tmp_path / "a.pth", zipfile.ZIP_DEFLATED), "compressed")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(tmp_path / "b.pth", "no file of torch.save")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({}, "is empty"),
        ({"x": torch.ones(1), "step": 3}, "step"),
        ({3: torch.ones(1)}, "entry 3"),
        ({"model": {"x": 1.0}}, "entry x"),
        ({"x": torch.ones(3).to_sparse()}, "sparse"),
        ({"x": torch.empty(3, device="meta")}, "without data"),
        ({"x": torch.ones(1).expand(10**6)}, "claims"),
    ],
)
def test_other_things_in_torch_files(tmp_path, content, part):
    torch.save(content, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", part)


def test_an_old_torch_file_says_what_to_do(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    refused(tmp_path / "a.pth", "before torch 1.6")


def test_a_name_with_line_breaks_stays_on_one_line(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"evil\nname\x1b[31m": torch.ones(2).to_sparse()}, path)
    assert "\x1b" not in refused(path, "evil\\nname")
