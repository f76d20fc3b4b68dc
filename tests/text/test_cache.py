import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from inspatio_sim.errors import InputError
from inspatio_sim.text import cache
from inspatio_sim.text.cache import CachedText
from inspatio_sim.text.hashed import HashedWords
from inspatio_sim.text.umt5 import Umt5
from tests.text.conftest import save_umt5

PROMPT = "a red car by the sea"


class Counting:
    """Hashed words that count how often they are asked."""

    def __init__(self, text_dim: int = 16, text_len: int = 8) -> None:
        self.words = HashedWords(text_dim=text_dim, text_len=text_len)
        self.text_dim, self.text_len, self.identity = text_dim, text_len, self.words.identity
        self.num_calls = 0

    def encode(self, prompt: str) -> torch.Tensor:
        self.num_calls += 1
        return self.words.encode(prompt)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_model_is_not_needed_again(tmp_path, dtype):
    folder = save_umt5(tmp_path / "model")
    encoder, second = Umt5(folder, dtype=dtype), Umt5(folder, dtype=dtype)
    expected = encoder.encode(PROMPT)
    cached = CachedText(encoder, tmp_path / "cache")
    assert torch.equal(cached.encode(PROMPT), expected)
    (folder / "text_encoder" / "model.safetensors").unlink()
    assert torch.equal(cached.encode(PROMPT), expected)  # from memory
    later = CachedText(second, tmp_path / "cache")
    assert torch.equal(later.encode(PROMPT), expected)  # from the file
    with pytest.raises(InputError, match="not a UMT5 encoder"):
        later.encode("another prompt")


@settings(max_examples=25, deadline=None)
@given(prompt=st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
def test_first_and_later_results_are_bit_equal(tmp_path_factory, prompt):
    folder = tmp_path_factory.mktemp("cache")
    encoder = HashedWords()
    first, later = CachedText(encoder, folder).encode(prompt), CachedText(encoder, folder).encode(prompt)
    assert first.numpy().tobytes() == later.numpy().tobytes() == encoder.encode(prompt).numpy().tobytes()
    assert first.shape == (8, 64)


def test_a_prompt_is_encoded_once(tmp_path):
    encoder = Counting()
    cached = CachedText(encoder, tmp_path)
    first = cached.encode(PROMPT)
    first.fill_(7)  # the caller's own: what is kept does not change
    assert torch.equal(cached.encode(PROMPT), encoder.words.encode(PROMPT))
    CachedText(encoder, tmp_path).encode(PROMPT)
    assert encoder.num_calls == 1
    CachedText(encoder, tmp_path).encode("the blue house")
    assert encoder.num_calls == 2


def test_encoders_do_not_share_files(tmp_path):
    for text_len in (4, 8):
        encoder = Counting(text_len=text_len)
        assert torch.equal(CachedText(encoder, tmp_path).encode(PROMPT), encoder.words.encode(PROMPT))
        assert encoder.num_calls == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_null_prompt_needs_neither_encoder_nor_file(tmp_path):
    encoder = Counting()
    assert not CachedText(encoder, tmp_path).encode(" &nbsp;\n").any()
    assert encoder.num_calls == 0
    assert not list(tmp_path.iterdir())


def test_the_file_says_what_it_is(tmp_path):
    encoder = Counting()
    CachedText(encoder, tmp_path).encode("ein grünes Haus")
    with safe_open(only_file(tmp_path), framework="np") as file:
        about = json.loads(file.metadata()["about"])
    assert about["prompt"] == "ein grünes Haus"
    assert about["encoder"] == encoder.identity
    assert "ein grünes Haus".encode() in only_file(tmp_path).read_bytes()  # plain to see


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit_flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def other_shape(path: Path) -> None:
    save_file({"rows": np.ones((3, 5), np.float32)}, path)


def other_name(path: Path) -> None:
    save_file({"columns": np.ones((3, 16), np.float32)}, path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncated, emptied, one_bit_flipped, other_shape, other_name])
def test_damaged_files_are_made_again(tmp_path, caplog, damage):
    encoder = Counting()
    expected = CachedText(encoder, tmp_path).encode(PROMPT)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert torch.equal(CachedText(encoder, tmp_path).encode(PROMPT), expected)
    assert encoder.num_calls == 2
    assert "making it again" in caplog.text
    assert only_file(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("where", ["a file", "below a file", "a folder of the file's name"])
def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, caplog, where):
    folder = tmp_path / "cache"
    if where == "a folder of the file's name":
        CachedText(Counting(), folder).encode(PROMPT)
        a_folder(only_file(folder))
        (only_file(folder) / "something").touch()
    else:
        folder.write_text("in the way")
        folder = folder if where == "a file" else folder / "prompts"
    encoder = Counting()
    cached = CachedText(encoder, folder)
    for _ in range(2):
        assert torch.equal(cached.encode(PROMPT), encoder.words.encode(PROMPT))
    assert encoder.num_calls == 1  # memory still works
    assert "prompt not cached: cannot write" in caplog.text


def test_a_full_disk_leaves_no_piece_behind(tmp_path, caplog, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    encoder = Counting()
    assert CachedText(encoder, tmp_path / "cache").encode(PROMPT).any()
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_the_encoder_refuses_is_refused(tmp_path, caplog):
    cached = CachedText(HashedWords(), tmp_path)
    with pytest.raises(InputError, match="65 words"):
        cached.encode("word " * 65)
    with pytest.raises(InputError, match="not valid Unicode"):
        cached.encode("a \udcff")
    assert not list(tmp_path.iterdir())
    assert not caplog.records


def test_the_least_recently_used_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MAX_FILES", 3)
    encoder = Counting()
    for i, prompt in enumerate(["one", "two", "three"]):
        CachedText(encoder, tmp_path).encode(prompt)
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 100 * (3 - i)))
    CachedText(encoder, tmp_path).encode("one")  # recently used
    CachedText(encoder, tmp_path).encode("four")
    assert len(list(tmp_path.iterdir())) == 3
    encoder.num_calls = 0
    for prompt in ("one", "three", "four"):
        CachedText(encoder, tmp_path).encode(prompt)
    assert encoder.num_calls == 0
    CachedText(encoder, tmp_path).encode("two")
    assert encoder.num_calls == 1


def test_place_of_the_cache(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        CachedText(HashedWords()).encode(PROMPT)
    assert len(list((tmp_path / "prompts").glob("*.safetensors"))) == 1
    assert not caplog.records
