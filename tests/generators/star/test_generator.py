"""Whole generators, with real networks of a tiny size: streams, batches, states, failures."""

import gc
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.errors import GenerationFailed, InputError, NotEnoughMemory
from inspatio_sim.generators.blocks.mask_latent import mask_latent
from inspatio_sim.generators.blocks.pixels import video_from
from inspatio_sim.generators.star.generator import MAX_PROMPTS
from inspatio_sim.generators.star.reference_latents import num_remembered
from inspatio_sim.generators.star.sampler import SamplerConfig
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World, reset_worlds, step_worlds
from tests.generators.star.small import (
    condition_of,
    make_codec,
    make_generator,
    make_reference,
    make_transformer,
    run_alone,
)

FORWARD = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)
TURN = PoseDelta.from_twist([0, 0, 0], [0, 0.3, 0], 1.0)


def some_conditions(num_blocks, *, block_latents=3, size_px=(32, 48), seed=0, is_frozen=False):
    """Of one world, from its first block on; time runs to and fro over ten frames, or stands still."""
    conditions, shown = [], 0
    for i in range(num_blocks):
        num_frames = 4 * block_latents - 3 * (i == 0)
        places = np.zeros(num_frames, int) if is_frozen else np.arange(shown, shown + num_frames) % 18
        conditions.append(condition_of(np.minimum(places, 18 - places).tolist(), size_px, seed=seed + i))
        shown += num_frames
    return conditions


def assert_within_a_level(a, b, *, share=0.02) -> None:
    """Products of another batch size add up in another order: a value at the edge may fall on its other side."""
    difference = np.abs(a.astype(int) - b)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


def flat(state) -> dict[str, torch.Tensor]:
    """Copies of everything that a state holds."""
    tensors = {"rng": state.rng, "shown": torch.from_numpy(state.shown), "forward": state.reference.forward}
    tensors |= {} if state.history is None else {"history": state.history}
    for part, codec_state in (("encoder", state.encoder), ("decoder", state.decoder)):
        tensors |= {f"{part}.{name}": tensor for name, tensor in (codec_state or {}).items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_same_state(a, b) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert torch.equal(tensor, b[name]), name


def assert_same_observation(a, b) -> None:
    for name in ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


# Streams


@pytest.mark.parametrize("alignment", ["causal", "look-ahead"])
@pytest.mark.parametrize(("block_latents", "first", "later"), [(1, 1, 4), (2, 5, 8), (3, 9, 12)])
def test_numbers_of_frames(reference, network_kind, alignment, block_latents, first, later):
    generator = make_generator(network_kind, block_latents=block_latents, time_alignment=alignment)
    assert (generator.first_block_frames, generator.frames_per_block) == (first, later)
    world = World(reference, generator=generator)
    frames = [world.reset().rgb_u8, *(world.step(motion).rgb_u8 for motion in (TURN, FORWARD))]
    assert [f.shape for f in frames] == [(n, 32, 48, 3) for n in (first, later, later)]
    assert {f.dtype for f in frames} == {np.dtype(np.uint8)}
    assert all(f.std() > 5 for f in frames)  # there is something in them


def test_blocks_by_hand(reference, network_kind):
    """From whole clips: what is encoded, masked, drawn and decoded in blocks is what it would be at once."""
    generator = make_generator(network_kind)
    conditions = some_conditions(3)
    blocks, last = run_alone(generator, generator.begin(reference, 11, "a red car"), conditions)

    render_u8 = np.concatenate([condition.render_u8 for condition in conditions])
    is_rendered = np.concatenate([condition.is_rendered for condition in conditions])
    frame_idx = np.concatenate([condition.reference_frame_idx for condition in conditions])
    codec, sampler = generator.codec, generator.sampler
    renders = codec.encode(video_from(render_u8)[None])
    shown = codec.encode(video_from(reference.frames_u8[frame_idx])[None])
    masks = mask_latent(torch.from_numpy(np.where(is_rendered, 1.0, -1.0)).float()[None, :, None])
    text = sampler.transformer.text_keys(generator.text_encoder.encode("a red car")[None])
    rng = torch.Generator().manual_seed(11)
    latents = []
    for now in (slice(0, 3), slice(3, 6), slice(6, 9)):
        latents.append(
            sampler.sample(
                reference=shown[:, now],
                history=latents[-1] if latents else None,
                condition=torch.cat([masks[:, now], renders[:, now]], 2),
                text=text,
                noise=lambda _: torch.randn(1, 3, 16, 4, 6, generator=rng),
            )
        )
    video = codec.decode(torch.cat(latents, 1))[0].movedim(1, -1).numpy()
    frames_u8 = np.round((video.astype(np.float64) + 1) * 127.5).astype(np.uint8)
    assert_within_a_level(np.concatenate(blocks), frames_u8)
    torch.testing.assert_close(last.history, latents[-1], atol=1e-4, rtol=0)
    assert last.shown.tolist() == frame_idx[-num_remembered(codec) :].tolist()


def test_same_seed_same_bytes_another_seed_others(reference, network_kind):
    def frames(seed):
        generator = make_generator(network_kind)
        return np.concatenate(run_alone(generator, generator.begin(reference, seed), some_conditions(3))[0])

    first = frames(3)
    assert np.array_equal(first, frames(3))
    assert (first != frames(4)).mean() > 0.9


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "a"])
def test_a_seed_that_is_no_whole_number_is_refused(reference, seed):
    with pytest.raises(InputError, match=f"seed={seed!r}: want a whole number from 0"):
        make_generator().begin(reference, seed)


def test_numpy_seeds_are_whole_numbers(reference):
    generator = make_generator()
    seed: Any = np.int64(7)
    assert torch.equal(generator.begin(reference, seed).rng, generator.begin(reference, 7).rng)


def test_everything_given_has_a_say(reference):
    """Render, mask, reference, prompt, past: change one, and the frames change."""
    generator = make_generator()
    conditions = some_conditions(2)
    frames, last = run_alone(generator, generator.begin(reference, 0, "a red car"), conditions)
    prompted, _ = run_alone(generator, generator.begin(reference, 0, "a blue car"), conditions)
    assert not np.array_equal(prompted[0], frames[0])
    first = generator.generate([conditions[0]], [generator.begin(reference, 0, "a red car")]).states[0]
    changes = {
        "render": replace(conditions[1], render_u8=conditions[1].render_u8[::-1].copy()),
        "mask": replace(conditions[1], is_rendered=~conditions[1].is_rendered),
        "reference": replace(conditions[1], reference_frame_idx=np.full(12, 3)),
    }
    for name, condition in changes.items():
        assert not np.array_equal(run_alone(generator, first, [condition])[0][0], frames[1]), name
    assert first.history is not None
    for other in (replace(first, history=-first.history), replace(first, rng=last.rng)):
        assert not np.array_equal(run_alone(generator, other, conditions[1:])[0][0], frames[1])


def test_stages_are_timed(reference):
    generator = make_generator()
    generation = generator.generate(some_conditions(1), [generator.begin(reference, 0)])
    assert list(generation.seconds) == ["encode", "denoise", "decode"]
    assert all(seconds > 0 for seconds in generation.seconds.values())


# Batches


def test_a_batch_is_its_worlds_one_by_one(reference, network_kind):
    """Seeds, prompts and clocks of their own."""
    generator = make_generator(network_kind)
    kinds = [(0, "", False), (1, "a red car", True), (2, "a blue house", False)]
    states = [generator.begin(reference, seed, prompt) for seed, prompt, _ in kinds]
    conditions = [some_conditions(3, seed=10 * seed, is_frozen=frozen) for seed, _, frozen in kinds]
    alone = [run_alone(generator, state, given) for state, given in zip(states, conditions, strict=True)]
    together = states
    for i in range(3):
        generation = generator.generate([given[i] for given in conditions], together)
        together = generation.states
        for frames_u8, (blocks, _) in zip(generation.frames_u8, alone, strict=True):
            assert_within_a_level(frames_u8, blocks[i])
    for state, (_, state_alone) in zip(together, alone, strict=True):
        assert torch.equal(state.rng, state_alone.rng)
        assert np.array_equal(state.shown, state_alone.shown)
        torch.testing.assert_close(state.history, state_alone.history, atol=1e-3, rtol=0)


def test_worlds_step_together_through_the_map(reference):
    generator = make_generator("cpu")
    config = WorldConfig(clock="loop")
    together, alone = (
        [World(reference, generator=generator, seed=i, prompt="x" * i, config=config) for i in range(3)]
        for _ in range(2)
    )
    motions = [TURN, FORWARD, TURN.inverse()]
    clocks: list[ClockMode | None] = ["freeze", None, "reverse"]
    for a, b in zip(reset_worlds(together), [world.reset() for world in alone], strict=True):
        assert_within_a_level(a.rgb_u8, b.rgb_u8)
    observations = step_worlds(together, motions, clocks)
    for observation, world, motion, clock in zip(observations, alone, motions, clocks, strict=True):
        expected = world.step(motion, clock)
        assert np.array_equal(observation.reference_frame_idx, expected.reference_frame_idx)
        # what was made up went through the map: a level there may move a pixel of the render
        assert np.median(np.abs(observation.rgb_u8.astype(int) - expected.rgb_u8)) <= 1


def test_worlds_that_begin_and_worlds_that_go_on_may_be_mixed(reference):
    generator = make_generator()
    conditions = [some_conditions(3, seed=10 * i) for i in range(3)]
    begun = [generator.begin(reference, i) for i in range(3)]
    alone = [run_alone(generator, state, given)[0] for state, given in zip(begun, conditions, strict=True)]
    states = list(begun)
    num_blocks = [0, 0, 0]
    for active in ([0], [1, 0], [2, 1, 0], [1, 2], [2]):  # the batch grows and shrinks
        given = [conditions[i][num_blocks[i]] for i in active]
        generation = generator.generate(given, [states[i] for i in active])
        for i, frames_u8, state in zip(active, generation.frames_u8, generation.states, strict=True):
            assert_within_a_level(frames_u8, alone[i][num_blocks[i]])
            states[i] = state
            num_blocks[i] += 1
    assert num_blocks == [3, 3, 3]


def test_worlds_of_other_sizes_may_be_mixed(reference):
    generator = make_generator()
    references = [reference, make_reference(10, (16, 32)), reference]
    conditions = [some_conditions(1, size_px=r.size_px, seed=i)[0] for i, r in enumerate(references)]
    states = [generator.begin(r, i) for i, r in enumerate(references)]
    generation = generator.generate(conditions, states)
    for i in range(3):
        expected = run_alone(generator, states[i], [conditions[i]])[0][0]
        assert_within_a_level(generation.frames_u8[i], expected)


def test_a_batch_of_none():
    generation = make_generator().generate([], [])
    assert (generation.frames_u8, generation.states) == ([], [])


# States


@pytest.mark.parametrize("alignment", ["causal", "look-ahead"])
def test_a_state_is_never_changed(reference, network_kind, alignment):
    generator = make_generator(network_kind, time_alignment=alignment)
    states = [generator.begin(reference, i) for i in range(2)]
    first, second, third = some_conditions(3)
    history = [(states, [flat(state) for state in states])]
    for condition in (first, second, third):
        states = generator.generate([condition] * 2, states).states
        history.append((states, [flat(state) for state in states]))
    frames = generator.generate([third], history[2][0][:1]).frames_u8[0]
    for kept, copies in history:
        for state, before in zip(kept, copies, strict=True):
            assert_same_state(flat(state), before)
    assert np.array_equal(generator.generate([third], history[2][0][:1]).frames_u8[0], frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alignment", ["causal", "look-ahead"])
@pytest.mark.parametrize("num_blocks", [0, 1, 3])
def test_a_packed_state_goes_on_bit_for_bit(reference, alignment, dtype, num_blocks):
    generator = make_generator("cpu", time_alignment=alignment, dtype=dtype)
    conditions = some_conditions(num_blocks + 2)
    _, state = run_alone(generator, generator.begin(reference, 5, "über"), conditions[:num_blocks])
    packed = {name: array.copy() for name, array in generator.pack(state).items()}
    fresh = make_generator("cpu", time_alignment=alignment, dtype=dtype)
    unpacked = fresh.unpack(packed, reference)
    assert unpacked.prompt == "über"
    assert_same_state(flat(unpacked), flat(state))
    expected, _ = run_alone(generator, state, conditions[num_blocks:])
    for a, b in zip(run_alone(fresh, unpacked, conditions[num_blocks:])[0], expected, strict=True):
        assert np.array_equal(a, b)


def test_a_packed_state_goes_on_where_the_codec_remembers_nothing(reference):
    torch.manual_seed(0)
    config = TinyConfig(encoder_width=0, decoder_widths=(), linear_path=True, time_alignment="causal")
    generator = make_generator(codec=TinyCodec(TinyAutoencoder(config).eval().requires_grad_(False)))
    conditions = some_conditions(3)
    _, state = run_alone(generator, generator.begin(reference, 5), conditions[:1])
    unpacked = generator.unpack(generator.pack(state), reference)
    expected, _ = run_alone(generator, state, conditions[1:])
    for a, b in zip(run_alone(generator, unpacked, conditions[1:])[0], expected, strict=True):
        assert np.array_equal(a, b)


def test_a_packed_state_does_not_grow(reference):
    generator = make_generator(time_alignment="look-ahead")
    state, sizes = generator.begin(reference, 0), []
    for condition in some_conditions(8):
        state = generator.generate([condition], [state]).states[0]
        sizes.append(sum(array.nbytes for array in generator.pack(state).values()))
    assert len(set(sizes[3:])) == 1  # by then as many frames have been shown as are remembered
    assert sizes[-1] < 2 * 9 * 32 * 48 * 3  # about a few frames; the clip and the ST-cache are not in it


def test_a_snapshot_goes_on_bit_for_bit(reference, tmp_path):
    world = World(reference, generator=make_generator("cpu"), seed=4, prompt="a house")
    world.reset()
    world.step(TURN)
    snapshot = world.snapshot()
    ahead = [world.step(motion) for motion in (FORWARD, TURN)]
    other = World(reference, generator=make_generator("cpu"))
    other.restore(snapshot)
    for motion, expected in zip((FORWARD, TURN), ahead, strict=True):
        assert_same_observation(other.step(motion), expected)


# Memory


@pytest.mark.parametrize("alignment", ["causal", "look-ahead"])
@pytest.mark.parametrize("block_latents", [1, 2, 3])
def test_low_memory_gives_the_same(reference, alignment, block_latents):
    conditions = some_conditions(3, block_latents=block_latents)
    runs = []
    for low_memory in (False, True):
        generator = make_generator(block_latents=block_latents, time_alignment=alignment, low_memory=low_memory)
        runs.append(run_alone(generator, generator.begin(reference, 0), conditions))
    for normal, low in zip(runs[0][0], runs[1][0], strict=True):
        assert_within_a_level(low, normal)
    torch.testing.assert_close(runs[1][1].history, runs[0][1].history, atol=1e-4, rtol=0)
    for name in ("encoder", "decoder"):
        normal, low = (getattr(state, name) for _, state in runs)
        assert normal.keys() == low.keys()
        for key, tensor in normal.items():
            torch.testing.assert_close(low[key], tensor, atol=1e-4, rtol=0)


def test_forty_blocks_take_no_more_memory_than_four():
    reference = make_reference(10, (16, 16))
    generator = make_generator("cpu", block_latents=1, sampler_config=SamplerConfig(steps=(1000, 500)))
    state = generator.begin(reference, 0)
    conditions = some_conditions(18, block_latents=1, size_px=(16, 16))  # after that the clock comes round again

    def run(indices):
        nonlocal state
        for i in indices:
            state = generator.generate([conditions[i if i < 18 else 9 + i % 9]], [state]).states[0]
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sum(t.numel() for t in flat(state).values())

    def tensor_bytes():
        tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor]
        return sum(t.nbytes for t in tensors if t.layout is torch.strided)  # packed weights have a layout of their own

    tracemalloc.start()
    try:
        run(range(18))
        caches = [cache.nbytes for cache in generator.sampler._caches.values()]
        python_before, state_before = run(range(18, 27))
        tensors_before = tensor_bytes()
        python_after, state_after = run(range(27, 63))
    finally:
        tracemalloc.stop()
    assert len(caches) == 1
    assert [cache.nbytes for cache in generator.sampler._caches.values()] == caches
    assert state_after == state_before
    assert python_after - python_before < 50_000
    assert tensor_bytes() - tensors_before < 50_000


def test_a_clip_is_encoded_once_for_all_its_worlds_and_let_go():
    generator = make_generator()
    reference = make_reference(6, (16, 16))
    told = []
    generator.progress = lambda what, share: told.append((what, share))
    states = [generator.begin(reference, seed) for seed in range(3)]
    num_told = len(told)
    assert num_told > 0
    assert states[0].reference is states[2].reference
    generator.unpack(generator.pack(states[0]), reference)
    assert len(told) == num_told
    other = make_reference(5, (16, 16))
    del reference
    gc.collect()
    generator.begin(other, 0)
    assert len(generator._references) == 1


def test_only_so_many_prompts_are_kept(reference):
    generator = make_generator()
    for i in range(MAX_PROMPTS + 5):
        generator.begin(reference, 0, f"word{i}")
    assert len(generator._texts) == MAX_PROMPTS
    state = generator.begin(reference, 0, "word0")
    assert generator.generate(some_conditions(1), [state]).frames_u8[0].shape[0] == 9


# Failures


def test_nan_weights_fail_and_the_world_stays(reference):
    transformer = make_transformer()
    generator = make_generator(transformer=transformer)
    world, untouched = (World(reference, generator=generator, seed=1) for _ in range(2))
    for each in (world, untouched):
        each.reset()
        each.step(TURN)
    weight = transformer.blocks[1].self_attn.o.weight
    good = weight.clone()
    weight[3, 4] = torch.nan
    before = flat(world._generator_state)
    with pytest.raises(GenerationFailed, match="the transformer gave NaN or infinity"):
        world.step(FORWARD)
    assert_same_state(flat(world._generator_state), before)
    weight.copy_(good)
    assert_same_observation(world.step(FORWARD), untouched.step(FORWARD))


def test_a_codec_that_gives_nan_fails_too(reference):
    codec = make_codec()
    generator = make_generator(codec=codec)
    state = generator.begin(reference, 0)
    next(reversed(list(codec.network.decoder.parameters())))[0] = torch.nan
    with pytest.raises(GenerationFailed, match="the codec gave NaN"):
        generator.generate(some_conditions(1), [state])


class OutOfMemory:
    """A network that runs out of memory as long as `error` is set."""

    def __init__(self, network):
        self.network = network
        self.error: Exception | None = None

    def __getattr__(self, name):
        return getattr(self.network, name)

    def denoise(self, *arguments):
        if self.error is not None:
            raise self.error
        return self.network.denoise(*arguments)


def allocation_error() -> RuntimeError:
    """What PyTorch raises where no machine has such memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46, dtype=torch.float64)
    return caught.value


@pytest.mark.parametrize("make_error", [torch.OutOfMemoryError, MemoryError, allocation_error])
def test_what_is_too_big_names_what_would_help(reference, make_error):
    network = OutOfMemory(make_transformer())
    generator = make_generator(transformer=network)  # type: ignore[arg-type]
    worlds = [World(reference, generator=generator, seed=i) for i in range(2)]
    untouched = World(reference, generator=make_generator(), seed=0)
    reset_worlds(worlds)
    untouched.reset()
    network.error = make_error()
    before = flat(worlds[0]._generator_state)
    with pytest.raises(NotEnoughMemory) as caught:
        step_worlds(worlds, [TURN, TURN])
    assert str(caught.value) == (
        "2 worlds at 32x48 px: out of memory on cpu: "
        "want low_memory=True, or fewer worlds at once, or a smaller size, or block_latents=1"
    )
    assert_same_state(flat(worlds[0]._generator_state), before)
    with pytest.raises(NotEnoughMemory, match="^1 world at 32x48 px: out of memory on cpu: want low_memory=True, or a"):
        worlds[0].step(TURN)
    network.error = None
    assert_within_a_level(worlds[0].step(TURN).rgb_u8, untouched.step(TURN).rgb_u8)


def test_nothing_is_named_that_would_not_help(reference):
    network = OutOfMemory(make_transformer())
    generator = make_generator(transformer=network, low_memory=True, block_latents=1)  # type: ignore[arg-type]
    network.error = MemoryError()
    with pytest.raises(NotEnoughMemory, match="on cpu: want a smaller size$"):
        generator.generate(some_conditions(1, block_latents=1), [generator.begin(reference, 0)])


def test_a_clip_that_is_too_big_to_encode_says_so(monkeypatch):
    generator = make_generator()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(generator.codec, "encode_complete", fail)
    with pytest.raises(NotEnoughMemory, match="16x32 px: out of memory on cpu: want .*a smaller size"):
        generator.begin(make_reference(3, (16, 32)), 0)


def test_other_errors_stay_what_they_are(reference):
    network = OutOfMemory(make_transformer())
    generator = make_generator(transformer=network)  # type: ignore[arg-type]
    network.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal") as caught:
        generator.generate(some_conditions(1), [generator.begin(reference, 0)])
    assert caught.value is network.error


@pytest.mark.parametrize(
    ("size_px", "nearest"), [((24, 48), "32x48"), ((32, 40), "32x32"), ((8, 70), "16x64"), ((31, 33), "32x32")]
)
def test_frames_must_be_whole_tokens(size_px, nearest):
    with pytest.raises(
        InputError, match=f"{size_px[0]}x{size_px[1]} px: want multiples of 16, the nearest is {nearest}"
    ):
        make_generator().begin(make_reference(2, size_px), 0)


def test_a_prompt_that_is_too_long_is_refused_at_once(reference):
    with pytest.raises(InputError, match="prompt: 65 words"):
        make_generator().begin(reference, 0, " ".join(f"w{i}" for i in range(65)))


@pytest.mark.parametrize("block_latents", [0, 4])
def test_wrong_block_lengths_are_refused(block_latents):
    with pytest.raises(InputError, match=f"block_latents={block_latents}: want 1"):
        make_generator(block_latents=block_latents)


def test_a_generator_put_together_by_hand_has_no_options():
    with pytest.raises(InputError, match="put together by hand"):
        _ = make_generator().options
