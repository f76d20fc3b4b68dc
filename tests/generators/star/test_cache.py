"""The ST-cache keeps its size, its slots and, while a block is denoised, its context."""

import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import BLOCK_SLOT, HISTORY_SLOT, REFERENCE_SLOT
from tests.generators.star.small import (
    MAKE_NETWORK,
    SMALL,
    make_cache,
    make_transformer,
    random_latents,
    random_text,
)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_size_is_that_of_context_and_block():
    cache = STCache(SMALL, batch=2, max_context_tokens=12, block_tokens=6, dtype=torch.bfloat16)
    elements = SMALL.num_layers * 2 * (12 + 6) * SMALL.num_heads * SMALL.head_dim
    assert cache.nbytes == 2 * 2 * elements


def test_what_is_written_is_read_layer_by_layer():
    cache = STCache(SMALL, batch=2, max_context_tokens=12, block_tokens=6)
    written = [tuple(numbers(2, 9, 2, 24, seed=10 * layer + i) for i in (0, 1)) for layer in range(2)]
    cache.begin(9)
    for layer, pair in enumerate(written):
        cache.write(layer, *pair)
    for layer, pair in enumerate(written):
        assert all(torch.equal(a, b) for a, b in zip(cache.context(layer), pair, strict=True))
        room = cache.with_room(layer, 6)
        assert [tuple(x.shape) for x in room] == [(2, 15, 2, 24)] * 2
        assert all(torch.equal(a[:, :9], b) for a, b in zip(room, pair, strict=True))
        assert room[0].data_ptr() == cache.keys[layer].data_ptr()  # nothing is copied
    cache.begin(4)  # a smaller context leaves nothing of the larger one
    assert cache.context(0)[0].shape[1] == 4
    assert cache.with_room(0, 6)[0].shape[1] == 10
    cache.reset()
    assert cache.context(1)[1].shape[1] == 0


def test_a_context_that_is_too_large_is_refused():
    cache = STCache(SMALL, batch=1, max_context_tokens=12, block_tokens=6)
    cache.begin(5)
    with pytest.raises(InputError, match="context of 13 tokens: the cache was made for 12"):
        cache.begin(13)
    assert cache.num_context_tokens == 5
    with pytest.raises(AssertionError, match="overwrite the context"):
        cache.with_room(0, 14)


def test_slots_are_fixed():
    assert (REFERENCE_SLOT, HISTORY_SLOT, BLOCK_SLOT) == (0, 3, 6)


@torch.inference_mode()
def test_denoising_leaves_the_context_alone(network_kind):
    network = MAKE_NETWORK[network_kind](make_transformer())
    noisy, text = random_latents(3, channels=36), network.text_keys(random_text())
    cache = make_cache(network, noisy)
    at_zero, at_step = (network.time_modulation(torch.tensor([t])) for t in (0.0, 750.0))
    size, place = cache.nbytes, cache.keys.data_ptr()
    rotary = network.rotary(BLOCK_SLOT + torch.arange(3), 4, 6)
    for num_context in (3, 6, 6):  # a first block, then later ones
        context = random_latents(num_context, seed=num_context)
        slots = network.rotary(torch.arange(num_context), 4, 6)
        network.write_context(context, at_zero, text, slots, cache)
        before = [tuple(x.clone() for x in cache.context(layer)) for layer in range(SMALL.num_layers)]
        flows = [network.denoise(noisy, at_step, text, rotary, cache) for _ in range(2)]
        assert torch.equal(*flows)
        for layer, pair in enumerate(before):
            assert all(torch.equal(a, b) for a, b in zip(cache.context(layer), pair, strict=True))
        assert (cache.nbytes, cache.keys.data_ptr()) == (size, place)


@torch.inference_mode()
def test_a_first_block_still_begins_at_slot_6(network_kind):
    """The gap of the missing history counts: closing it changes the flow, moving everything does not."""
    network = MAKE_NETWORK[network_kind](make_transformer())
    noisy, context = random_latents(3, channels=36), random_latents(3, seed=1)
    text = network.text_keys(random_text())
    at_zero, at_step = (network.time_modulation(torch.tensor([t])) for t in (0.0, 750.0))

    def flow(context_slot, block_slot):
        cache = make_cache(network, noisy)
        slots = network.rotary(context_slot + torch.arange(3), 4, 6)
        network.write_context(context, at_zero, text, slots, cache)
        return network.denoise(noisy, at_step, text, network.rotary(block_slot + torch.arange(3), 4, 6), cache)

    torch.testing.assert_close(flow(0, 6), flow(5, 11), atol=1e-5, rtol=0)
    assert (flow(0, 6) - flow(0, 3)).abs().max() > 1e-3
