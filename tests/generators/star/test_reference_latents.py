"""Any sequence of a clip's frames has the latents that encoding its whole history gives."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.generators.blocks.pixels import video_from
from inspatio_sim.generators.star import reference_latents
from inspatio_sim.generators.star.reference_latents import (
    MAX_FILES,
    MAX_STRETCHES,
    ReferenceLatents,
    encode_frames,
    num_remembered,
)
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode
from tests.generators.star.small import make_codec

NUM_FRAMES, SIZE_PX = 46, (16, 24)
ALIGNMENTS = ("causal", "look-ahead")


def random_frames(num_frames=NUM_FRAMES, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, *SIZE_PX, 3), np.uint8)


def make_latents(alignment, num_frames=NUM_FRAMES):
    codec, frames_u8 = make_codec(alignment), random_frames(num_frames)
    return ReferenceLatents(frames_u8, codec, encode_frames(frames_u8, np.arange(num_frames), codec))


def play(latents, blocks):
    """Latents of successive blocks, each knowing as much of the past as a world keeps."""
    shown, results = np.empty(0, np.int64), []
    for block in blocks:
        results.append(latents.of_block(shown, block)[0])
        shown = np.concatenate([shown, block])[-num_remembered(latents._codec) :]
    return results


def of_whole_history(latents, blocks, i):
    """Latents of block i, everything shown up to it encoded as one stream. [n, C, h, w]"""
    num_latents = (len(blocks[i]) + 3) // 4
    shown = np.concatenate(blocks[: i + 1])
    video = video_from(latents._frames_u8[shown])[None]
    return latents._codec.encode(video)[0, -num_latents:]


def clock_blocks(modes, *, block_latents=3, num_frames=NUM_FRAMES, own_mode: ClockMode = "ping-pong"):
    clock = Clock(num_frames, mode=own_mode)
    return [
        clock.advance(4 * block_latents - 3 * (i == 0), None if mode == "play" else mode)
        for i, mode in enumerate(modes)
    ]


# The clip itself


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("chunk_latents", [1, 4])
@pytest.mark.parametrize("num_frames", [1, 4, 5, 13, 29, 46])
def test_a_clip_is_encoded_a_little_at_a_time_as_if_at_once(alignment, num_frames, chunk_latents):
    codec, frames_u8 = make_codec(alignment), random_frames(num_frames)
    told = []
    pieces = encode_frames(
        frames_u8,
        np.arange(num_frames),
        codec,
        chunk_latents=chunk_latents,
        progress=lambda what, share: told.append((what, share)),
    )
    completed = np.concatenate([frames_u8, np.repeat(frames_u8[-1:], -(num_frames - 1) % 4, 0)])
    whole = codec.encode(video_from(completed)[None])[0]
    assert pieces.shape == (1 + -(-(num_frames - 1) // 4), 16, 2, 3)
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {what for what, _ in told} == {"encoding the clip"}


# Played forward


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("block_latents", [1, 2, 3])
def test_played_forward_they_are_slices_of_the_clip(alignment, block_latents):
    latents = make_latents(alignment)
    blocks = clock_blocks(["play"] * 3, block_latents=block_latents)
    for i, result in enumerate(play(latents, blocks)):
        assert torch.equal(result, latents.forward[i * block_latents : (i + 1) * block_latents])
    assert not latents._stretches  # nothing was encoded live


def test_played_forward_a_codec_that_looks_ahead_sees_the_clip():
    """Only a block's last latent sees past the block; there the clip's next frames are right, a guess is not."""
    latents = make_latents("look-ahead")
    blocks = clock_blocks(["play"] * 3)
    for i, result in enumerate(play(latents, blocks)):
        expected = of_whole_history(latents, blocks, i)
        torch.testing.assert_close(result[:-1], expected[:-1], atol=1e-5, rtol=0)
        assert (result[-1] - expected[-1]).abs().max() > 1e-3


# Any other time


def assert_as_whole_history(latents, blocks):
    for i, result in enumerate(play(latents, blocks)):
        expected = of_whole_history(latents, blocks, i)
        if latents._codec.network.config.time_alignment == "look-ahead" and (np.diff(blocks[i]) == 1).all():
            result, expected = result[:-1], expected[:-1]  # see the test above
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    "modes",
    [
        ["freeze"] * 6,
        ["play", "freeze", "freeze", "play"],
        ["play", "play", "reverse", "reverse", "play"],
        ["play"] * 9,  # turns round at the end
        ["play", "slow", "slow", "play", "play"],
        ["freeze", "play", "play", "play", "play"],
    ],
    ids="-".join,
)
def test_time_that_plays_tricks_is_encoded_as_it_is_shown(alignment, modes):
    assert_as_whole_history(make_latents(alignment), clock_blocks(modes))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("num_frames", [1, 2, 10, 13, 46])
def test_clips_that_loop(alignment, num_frames):
    blocks = clock_blocks(["play"] * 7, num_frames=num_frames, own_mode="loop")
    assert_as_whole_history(make_latents(alignment, num_frames), blocks)


@settings(max_examples=12, deadline=None)
@given(
    alignment=st.sampled_from(ALIGNMENTS),
    block_latents=st.integers(1, 3),
    starts=st.lists(st.integers(0, 33), min_size=1, max_size=8),
    steps=st.lists(st.sampled_from([-1, 0, 1]), min_size=8, max_size=8),
)
def test_jumps_to_anywhere(alignment, block_latents, starts, steps):
    """Every block may begin anywhere and run either way, or stand still."""
    blocks = []
    for i, (start, step) in enumerate(zip(starts, steps, strict=False)):
        length = 4 * block_latents - 3 * (i == 0)
        blocks.append(np.clip(start + step * np.arange(length), 0, NUM_FRAMES - 1))
    assert_as_whole_history(make_latents(alignment), blocks)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_as_many_frames_are_remembered_as_count(alignment):
    latents = make_latents(alignment)
    remembered = num_remembered(latents._codec)
    assert remembered == 33
    shown, block = np.arange(32, -1, -1), np.arange(1, 13)
    before = latents.of_block(shown, block)
    earlier = np.concatenate([np.arange(40, 40 - 8, -1), shown])
    torch.testing.assert_close(latents.of_block(earlier, block), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("first", range(6))
def test_only_whole_latents_of_the_clip_are_slices_of_it(alignment, first):
    """Time may have jumped to any frame and run forward since: one in four of those streams is cut as the clip is."""
    latents = make_latents(alignment, 53)
    shown, block = np.arange(first, first + 33), np.arange(first + 33, first + 45)
    result = latents.of_block(shown, block)[0]
    expected = of_whole_history(latents, [shown, block], 1)
    kept = slice(0, -1) if alignment == "look-ahead" else slice(None)
    torch.testing.assert_close(result[kept], expected[kept], atol=1e-5, rtol=0)
    assert (not latents._stretches) == (first % 4 == 0)


def test_live_latents_are_kept_but_not_too_many(monkeypatch):
    latents = make_latents("causal")
    encoded = []

    def counting(*arguments, **options):
        encoded.append(1)
        return encode_frames(*arguments, **options)

    monkeypatch.setattr(reference_latents, "encode_frames", counting)
    shown = np.empty(0, np.int64)

    def ask(i):
        return latents.of_block(shown, np.array([i // 9, i % 9, 0, 0, i % 2]))

    first = ask(10)
    for i in range(10, 10 + MAX_STRETCHES - 1):
        ask(i)
    assert len(encoded) == MAX_STRETCHES - 1
    assert ask(10) is not None
    assert len(encoded) == MAX_STRETCHES - 1  # kept, and now the last to go
    for i in range(200, 220):
        ask(i)
    assert len(latents._stretches) == MAX_STRETCHES
    num_encoded = len(encoded)
    assert torch.equal(ask(10), first)
    assert len(encoded) == num_encoded
    ask(11)
    assert len(encoded) == num_encoded + 1


# On disk


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "latents"


@pytest.fixture
def no_encoding(monkeypatch):
    def refuse():
        def fail(*_):
            raise AssertionError("encoded again")

        monkeypatch.setattr(reference_latents, "encode_frames", fail)

    return refuse


def of(reference, identity="a", codec=None):
    return ReferenceLatents.of(reference, codec or make_codec(), codec_identity=identity).forward


def test_a_clip_is_encoded_once(cache, reference, no_encoding):
    first = of(reference)
    assert len(list(cache.iterdir())) == 1
    no_encoding()
    again = of(replace(reference, source="elsewhere"))
    assert torch.equal(first, again)
    assert (again.dtype, again.shape) == (torch.float32, (5, 16, 4, 6))


def test_other_clips_and_other_codecs_have_latents_of_their_own(cache, reference):
    first = of(reference)
    other_frames = reference.frames_u8.copy()
    other_frames[-1, 0, 0] ^= 255
    assert not torch.equal(of(replace(reference, frames_u8=other_frames)), first)
    assert not torch.equal(of(reference, "b", make_codec(seed=5)), first)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_file_is_made_again(cache, reference, caplog, damage):
    first = of(reference)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    assert torch.equal(of(reference), first)
    assert "cannot be read" in caplog.text
    assert path.read_bytes() == good


@pytest.mark.parametrize("place", ["file", "no such device", "name too long"])
def test_a_cache_that_cannot_be_written_costs_only_time(reference, tmp_path, monkeypatch, caplog, place):
    (tmp_path / "file").write_text("no folder")
    folder = {"file": tmp_path / "file", "no such device": "/proc/none", "name too long": tmp_path / ("x" * 300)}
    monkeypatch.setenv("INSPATIO_CACHE", str(folder[place]))
    latents = of(reference)
    assert latents.shape[0] == 5
    assert "not kept" in caplog.text


def test_only_so_many_clips_are_kept(cache, reference):
    of(reference)
    (path,) = cache.iterdir()
    os.utime(path, (0, 0))
    for i in range(MAX_FILES + 3):
        other = cache / f"{i}.safetensors"
        other.write_bytes(b"")
        os.utime(other, (1000 + i, 1000 + i))
    of(reference)  # read, so used just now
    of(reference, "b")
    kept = {file.name for file in cache.iterdir()}
    assert len(kept) == MAX_FILES
    assert path.name in kept
    assert {"4.safetensors", "5.safetensors"} & kept == {"5.safetensors"}
