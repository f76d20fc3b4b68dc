"""Whole generators, with real networks of a tiny size: frames, batches, memory, states, failures."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inspatio_sim.codecs.image import SingleFrames
from inspatio_sim.condition.condition import Condition
from inspatio_sim.errors import GenerationFailed, InputError, NotEnoughMemory
from inspatio_sim.generators.blocks.paste import close_cracks, paste_renders
from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from inspatio_sim.generators.frame.generator import FrameGenerator, FrameState
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FrameNetwork, FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.frame.view_memory import View
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World, reset_worlds, step_worlds
from tests.generators.star.small import condition_of, make_codec, make_reference, randomise

SMALL = FrameConfig(
    input_size=4,
    patch_size=1,
    in_channels=16,
    mask_channels=1,
    hidden_size=32,
    depth=2,
    num_heads=2,
    learns_sigma=False,
    has_caption=False,
)
FORWARD = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)
TURN = PoseDelta.from_twist([0, 0, 0], [0, 0.3, 0], 1.0)
MAKE_NETWORK: dict[str, Callable[[FrameTransformer], FrameNetwork]] = {"plain": lambda t: t, "cpu": CpuFrameTransformer}
NOWHERE = np.array([[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, -50.0], [0, 0, 0, 1]])  # behind the room, looking away


@pytest.fixture(params=sorted(MAKE_NETWORK))
def network_kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Fourteen frames of 32 x 48 pixels by a camera that moves."""
    return make_reference()


def make_transformer(config: FrameConfig = SMALL, dtype: torch.dtype = torch.float32) -> FrameTransformer:
    transformer = FrameTransformer(config)
    randomise(transformer, 0)
    return transformer.to(dtype).eval().requires_grad_(False)


def make_generator(
    network: str = "plain",
    *,
    config: FrameConfig = SMALL,
    dtype: torch.dtype = torch.float32,
    transformer: Any = None,
    codec: Any = None,
    steps: tuple[int, ...] = (999, 200),
    **options: Any,
) -> FrameGenerator:
    transformer = transformer or MAKE_NETWORK[network](make_transformer(config, dtype))
    sampler = FrameSampler(transformer, FrameSamplerConfig(steps=steps))
    return FrameGenerator(sampler, SingleFrames(codec or make_codec(dtype=dtype), latent_scale=1.4), **options)


def some_conditions(num_frames: int, *, seed: int = 0, size_px: tuple[int, int] = (32, 48)) -> list[Condition]:
    return [condition_of([i], size_px, seed=seed + i) for i in range(num_frames)]


def with_hole(condition: Condition) -> Condition:
    """The condition with something too wide to be a crack not rendered."""
    is_rendered = condition.is_rendered.copy()
    is_rendered[:, 5:20, 13:37] = False
    return replace(condition, is_rendered=is_rendered, render_u8=condition.render_u8 * is_rendered[..., None])


def run_alone(generator: FrameGenerator, state: FrameState, conditions: list[Condition]):
    """Frames of one world, one after the other, none of them observed. [N, H, W, 3]"""
    frames = []
    for condition in conditions:
        generation = generator.generate([condition], [state])
        frames.append(generation.frames_u8[0])
        state = generation.states[0]
    return np.concatenate(frames), state


def assert_within_a_level(a, b, *, share=0.02) -> None:
    """Products of another batch size add up in another order: a value at the edge may fall on its other side."""
    difference = np.abs(a.astype(int) - b)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


def flat(state: FrameState) -> dict[str, Any]:
    """Copies of everything that a state holds."""
    return {"seed": state.seed, "K_px": state.intrinsics.K_px} | {
        f"{i}.{name}": np.array(value)
        for i, view in enumerate(state.memory.views)
        for name, value in {**vars(view), "latent": view.latent.numpy()}.items()
        if name != "samples"
    }


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert np.array_equal(value, b[name]), name


def assert_same_observation(a, b) -> None:
    for name in ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def num_generated(world: World) -> int:
    return sum(view.is_generated for view in state_of(world).memory.views)


def state_of(world: World) -> FrameState:
    return world._generator_state


# Frames


def test_a_step_is_a_frame(reference, network_kind):
    world = World(reference, generator=make_generator(network_kind))
    frames = [world.reset().rgb_u8, world.step(TURN).rgb_u8, world.step(FORWARD).rgb_u8]
    assert [f.shape for f in frames] == 3 * [(1, 32, 48, 3)]
    assert {f.dtype for f in frames} == {np.dtype(np.uint8)}
    assert all(f.std() > 5 for f in frames)  # there is something in them


@pytest.mark.parametrize("mask_channels", [0, 1])
def test_a_frame_by_hand(reference, mask_channels):
    """Render and mask, the view that shows most of it, noise, two steps, decoded."""
    generator = make_generator(config=replace(SMALL, mask_channels=mask_channels))
    condition = with_hole(some_conditions(1)[0])
    state = generator.begin(reference, 11)
    frames, after = run_alone(generator, state, [condition])

    def image(frame_u8) -> Tensor:
        return torch.from_numpy(frame_u8.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]

    def as_input(frame_u8, known) -> Tensor:  # known: of every 8 x 8 pixels, -1 to 1
        return torch.cat([codec.encode(image(frame_u8)), torch.from_numpy(known)[None, None][:, :mask_channels]], 1)

    codec, rng = generator.codec, torch.Generator().manual_seed(11)
    renders_u8, is_rendered = close_cracks(condition.render_u8, condition.is_rendered)
    known = 2 * is_rendered[0].reshape(4, 8, 6, 8).mean((1, 3), dtype=np.float32) - 1
    assert -1 == known.min() < known.max() == 1
    assert (abs(known) < 1).any()
    chosen = state.memory.select(condition.depth_m[0], reference.intrinsics, condition.T_world_camera[0])
    frame_idx = state.memory.views[chosen].frame_idx
    assert frame_idx is not None
    latents = generator.sampler.sample(
        noise=lambda _: torch.randn(1, 16, 4, 6, generator=rng),
        anchors=as_input(renders_u8[0], known),
        reference=as_input(reference.frames_u8[frame_idx], np.ones_like(known)),
    )
    expected = codec.decode(latents)[0].permute(1, 2, 0).numpy()
    assert_within_a_level(frames[0], np.round((expected.astype(np.float64) + 1) * 127.5).astype(np.uint8))
    assert after is state


def test_same_seed_same_bytes_another_seed_others(reference, network_kind):
    def frames(seed):
        generator = make_generator(network_kind)
        return run_alone(generator, generator.begin(reference, seed), some_conditions(3))[0]

    first = frames(3)
    assert np.array_equal(first, frames(3))
    assert (first != frames(4)).mean() > 0.9


def test_everything_given_has_a_say(reference):
    """Render, mask, remembered view, noise: change one, and the frame changes."""
    generator = make_generator()
    condition, state = some_conditions(1)[0], generator.begin(reference, 0)
    frames, _ = run_alone(generator, state, [condition])
    other_views = tuple(replace(view, latent=-view.latent) for view in state.memory.views)
    changes = {
        "render": (replace(condition, render_u8=condition.render_u8[:, ::-1].copy()), state),
        "mask": (replace(condition, is_rendered=~condition.is_rendered), state),
        "memory": (condition, replace(state, memory=replace(state.memory, views=other_views))),
        "noise": (condition, replace(state, seed=1)),
    }
    for name, (changed, begun) in changes.items():
        assert not np.array_equal(run_alone(generator, begun, [changed])[0], frames), name


def test_what_is_made_up_does_not_flicker(reference):
    generator = make_generator()
    frames, _ = run_alone(generator, generator.begin(reference, 0), 3 * some_conditions(1))
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_what_is_rendered_is_laid_over(reference):
    condition = with_hole(some_conditions(1)[0])
    plain, pasting = (make_generator(pastes_renders=pastes) for pastes in (False, True))
    frames, pasted = (run_alone(g, g.begin(reference, 0), [condition])[0] for g in (plain, pasting))
    assert np.array_equal(pasted, paste_renders(frames, *close_cracks(condition.render_u8, condition.is_rendered)))
    assert (pasted != frames).any()


def test_one_step_is_another_frame_than_two(reference):
    generators = [make_generator(steps=steps) for steps in ((999,), (999, 200))]
    one, two = (run_alone(g, g.begin(reference, 0), some_conditions(1))[0] for g in generators)
    assert not np.array_equal(one, two)


def test_stages_are_timed(reference):
    generator = make_generator()
    generation = generator.generate(some_conditions(1), [generator.begin(reference, 0)])
    assert list(generation.seconds) == ["select", "encode", "denoise", "decode"]
    assert all(seconds > 0 for seconds in generation.seconds.values())


# Batches


def test_a_batch_is_its_worlds_one_by_one(reference, network_kind):
    generator = make_generator(network_kind)
    states = [generator.begin(reference, seed) for seed in range(3)]
    conditions = [some_conditions(3, seed=10 * seed) for seed in range(3)]
    alone = [run_alone(generator, state, given) for state, given in zip(states, conditions, strict=True)]
    for i in range(3):
        generation = generator.generate([given[i] for given in conditions], states)
        states = generation.states
        for frames_u8, (expected, _) in zip(generation.frames_u8, alone, strict=True):
            assert_within_a_level(frames_u8, expected[i : i + 1])
    for state, (_, expected) in zip(states, alone, strict=True):
        assert_same_state(flat(state), flat(expected))


def test_worlds_step_together_through_memory_and_map(reference):
    generator = make_generator("cpu")
    together, alone = ([World(reference, generator=generator, seed=i) for i in range(3)] for _ in range(2))
    motions = [TURN, FORWARD, TURN.inverse()]
    for a, b in zip(reset_worlds(together), [world.reset() for world in alone], strict=True):
        assert_within_a_level(a.rgb_u8, b.rgb_u8)
    for _ in range(2):
        observations = step_worlds(together, motions)
        for observation, world, motion in zip(observations, alone, motions, strict=True):
            expected = world.step(motion)
            # what was made up went through the map: a level there may move a pixel of the render
            assert np.median(np.abs(observation.rgb_u8.astype(int) - expected.rgb_u8)) <= 1
    assert [num_generated(world) for world in together] == [num_generated(world) for world in alone]


def test_worlds_of_other_sizes_may_be_mixed(reference):
    generator = make_generator()
    references = [reference, make_reference(10, (16, 40)), reference]
    conditions = [some_conditions(1, size_px=r.size_px, seed=i)[0] for i, r in enumerate(references)]
    states = [generator.begin(r, i) for i, r in enumerate(references)]
    generation = generator.generate(conditions, states)
    for i in range(3):
        assert_within_a_level(generation.frames_u8[i], run_alone(generator, states[i], [conditions[i]])[0])


def test_a_batch_of_none():
    generation = make_generator().generate([], [])
    assert (generation.frames_u8, generation.states) == ([], [])


# Memory


@pytest.mark.parametrize("max_views", [2, 8, 32])
def test_a_clip_leaves_room_for_what_is_generated(reference, max_views):
    memory = make_generator(max_views=max_views).begin(reference, 0).memory
    frame_idx = [view.frame_idx for view in memory.views]
    assert 1 <= len(frame_idx) <= max_views // 2
    assert len(set(frame_idx)) == len(frame_idx)
    assert None not in frame_idx


def test_frames_that_show_the_same_are_remembered_once(static_reference):
    assert len(make_generator().begin(static_reference, 0).memory) == 1


def test_a_clip_is_encoded_once_for_all_its_worlds_and_let_go():
    generator = make_generator()
    reference = make_reference(6, (16, 16))
    told = []
    generator.progress = lambda what, share: told.append((what, share))
    states = [generator.begin(reference, seed) for seed in range(3)]
    num_told = len(told)
    assert told[-1] == ("encoding views of the clip", 1.0)
    assert states[0].memory is states[2].memory
    generator.unpack(generator.pack(states[0]), reference)
    assert len(told) == num_told
    other = make_reference(5, (16, 16))
    del reference
    gc.collect()
    generator.begin(other, 0)
    assert len(generator._memories) == 1


def test_a_place_never_seen_is_remembered_as_it_was_made(static_reference):
    generator = make_generator(pastes_renders=True)
    world = World(static_reference, generator=generator)
    world.reset()
    assert num_generated(world) == 0  # the clip shows it all
    for _ in range(10):
        seen = world.step(TURN)
        if num_generated(world):
            break
    view = state_of(world).memory.views[-1]
    assert view.is_generated
    assert np.array_equal(view.T_world_camera, seen.T_world_camera[0])
    image = torch.from_numpy(seen.rgb_u8[0].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    torch.testing.assert_close(view.latent, generator.codec.encode(image)[0], atol=1e-5, rtol=1e-5)
    assert np.array_equal(view.depth_m, seen.depth_m[0])
    num_views = len(state_of(world).memory)
    world.step(PoseDelta.identity())
    assert len(state_of(world).memory) == num_views  # nothing new


def test_memory_is_bounded_and_goes_round(static_reference):
    world = World(static_reference, generator=make_generator("cpu", max_views=4, steps=(999,)))
    world.reset()
    lengths, sizes_b = [], []
    for i in range(24):
        world.step(TURN if i % 4 else FORWARD)
        memory = state_of(world).memory
        lengths.append(len(memory))
        sizes_b.append(sum(array.nbytes for array in world.snapshot().generator.values()))
        assert any(not view.is_generated for view in memory.views)
    assert max(lengths) == 4
    assert lengths[12:] == 12 * [4]
    assert len(set(sizes_b[12:])) == 1


def test_where_no_anchor_is_in_sight_memory_alone_is_seen(reference):
    generator = make_generator()
    world = World(reference, generator=generator, config=WorldConfig(collisions="off"))
    lost = world.reset(T_world_camera=NOWHERE)
    assert world.condition is not None
    assert not world.condition.is_rendered.any()
    assert (lost.known == Known.MADE_UP).all()
    assert lost.rgb_u8.std() > 5
    state = generator.begin(reference, 0)
    frames, _ = run_alone(generator, state, [world.condition])
    assert np.array_equal(frames, lost.rgb_u8)
    other_views = tuple(replace(view, latent=-view.latent) for view in state.memory.views)
    other = replace(state, memory=replace(state.memory, views=other_views))
    assert not np.array_equal(run_alone(generator, other, [world.condition])[0], frames)
    world.step(TURN)  # and it goes on


def test_a_generated_view_is_only_taken_where_something_filmed_is_in_sight(reference):
    """Else its faults would go from frame to frame."""
    generator = make_generator()
    state, condition = generator.begin(reference, 0), some_conditions(1)[0]
    view = View.of(
        torch.randn(16, 4, 6), condition.depth_m[0], reference.intrinsics, condition.T_world_camera[0]
    )  # from where the frame is seen, so that none shows more
    remembered = replace(state, memory=state.memory.with_view(view))
    made_up = replace(condition, known=np.zeros_like(condition.known))
    for seen, is_alike in ((condition, False), (made_up, True)):
        before, after = (run_alone(generator, each, [seen])[0] for each in (state, remembered))
        assert np.array_equal(before, after) == is_alike


# States


def test_a_state_is_never_changed(static_reference):
    generator = make_generator()
    world = World(static_reference, generator=generator)
    world.reset()
    history = [(state_of(world), flat(state_of(world)))]
    for _ in range(6):
        world.step(TURN)
        history.append((state_of(world), flat(state_of(world))))
    assert len(history[-1][0].memory) > len(history[0][0].memory)
    for state, copies in history:
        assert_same_state(flat(state), copies)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_steps", [0, 6])
def test_a_snapshot_goes_on_bit_for_bit(static_reference, dtype, num_steps):
    """In the same world, and in one whose generator has seen nothing yet."""
    world = World(static_reference, generator=make_generator("cpu", dtype=dtype), seed=4)
    world.reset()
    for _ in range(num_steps):
        world.step(TURN)
    assert (num_generated(world) > 0) == (num_steps > 0)
    snapshot, before = world.snapshot(), flat(state_of(world))
    motions = [FORWARD, TURN, TURN, TURN]
    ahead = [world.step(motion) for motion in motions]
    after = flat(state_of(world))
    for again in (world, World(static_reference, generator=make_generator("cpu", dtype=dtype))):
        again.restore(snapshot)
        assert_same_state(flat(state_of(again)), before)
        for motion, expected in zip(motions, ahead, strict=True):
            assert_same_observation(again.step(motion), expected)
        assert_same_state(flat(state_of(again)), after)


def test_views_of_the_clip_are_packed_by_their_frames(reference):
    generator = make_generator()
    state = generator.begin(reference, 0)
    packed = generator.pack(state)
    assert sum(array.nbytes for array in packed.values()) < state.memory.views[0].latent.nbytes + 6000
    assert_same_state(flat(make_generator().unpack(packed, reference)), flat(state))


# Failures


def test_nan_weights_fail_and_the_world_stays(reference):
    transformer = make_transformer()
    generator = make_generator(transformer=transformer)
    world, untouched = (World(reference, generator=generator, seed=1) for _ in range(2))
    for each in (world, untouched):
        each.reset()
        each.step(TURN)
    weight = transformer.blocks[1].attn.proj.weight
    good = weight.clone()
    weight[3, 4] = torch.nan
    before = flat(state_of(world))
    with pytest.raises(GenerationFailed, match="the transformer gave NaN or infinity"):
        world.step(FORWARD)
    assert_same_state(flat(state_of(world)), before)
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

    def __init__(self, network: FrameTransformer) -> None:
        self.network = network
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def denoise(self, *arguments: Any) -> Tensor:
        if self.error is not None:
            raise self.error
        return self.network.denoise(*arguments)


@pytest.mark.parametrize("make_error", [torch.OutOfMemoryError, MemoryError])
def test_what_is_too_big_names_what_would_help(reference, make_error):
    network = OutOfMemory(make_transformer())
    generator = make_generator(transformer=network)
    worlds = [World(reference, generator=generator, seed=i) for i in range(2)]
    untouched = World(reference, generator=make_generator(), seed=0)
    reset_worlds(worlds)
    untouched.reset()
    network.error = make_error()
    before = flat(state_of(worlds[0]))
    with pytest.raises(NotEnoughMemory) as caught:
        step_worlds(worlds, [TURN, TURN])
    assert str(caught.value) == (
        "2 worlds at 32x48 px: out of memory on cpu: want fewer worlds at once, or a smaller size"
    )
    assert_same_state(flat(state_of(worlds[0])), before)
    with pytest.raises(NotEnoughMemory, match="^1 world at 32x48 px: out of memory on cpu: want a smaller size$"):
        worlds[0].step(TURN)
    network.error = None
    assert_within_a_level(worlds[0].step(TURN).rgb_u8, untouched.step(TURN).rgb_u8)


class RendersOnly:
    """A codec that runs out of memory after its first call, which is of the renders; the next are of views."""

    def __init__(self, codec: SingleFrames) -> None:
        self.codec = codec
        self.batch_sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def encode(self, images: Tensor) -> Tensor:
        self.batch_sizes.append(len(images))
        if len(self.batch_sizes) > 1:
            raise MemoryError
        return self.codec.encode(images)


def test_a_view_that_cannot_be_kept_fails_the_step_and_the_worlds_stay(static_reference):
    generator = make_generator()
    worlds, untouched = ([World(static_reference, generator=generator, seed=i) for i in range(2)] for _ in range(2))
    reset_worlds(worlds)
    reset_worlds(untouched)
    for _ in range(10):
        step_worlds(untouched, [TURN, TURN])
        if any(num_generated(world) for world in untouched):
            break
        step_worlds(worlds, [TURN, TURN])
    before = [(world.map.num_points, flat(state_of(world))) for world in worlds]
    whole = generator.codec
    generator.codec = failing = RendersOnly(whole)  # type: ignore[assignment, arg-type]
    with pytest.raises(NotEnoughMemory, match="1 world at 48x80 px"):
        step_worlds(worlds, [TURN, TURN])
    assert failing.batch_sizes[:2] == [2, 1]
    generator.codec = whole
    for world, (num_points, state) in zip(worlds, before, strict=True):
        assert world.map.num_points == num_points
        assert_same_state(flat(state_of(world)), state)
    step_worlds(worlds, [TURN, TURN])
    for world, expected in zip(worlds, untouched, strict=True):
        assert_same_state(flat(state_of(world)), flat(state_of(expected)))


@pytest.mark.parametrize(
    ("size_px", "nearest"), [((20, 48), "16x48"), ((32, 44), "32x48"), ((8, 70), "8x72"), ((31, 33), "32x32")]
)
def test_frames_must_be_whole_tokens(size_px, nearest):
    with pytest.raises(
        InputError, match=f"{size_px[0]}x{size_px[1]} px: want multiples of 8, the nearest is {nearest}"
    ):
        make_generator().begin(make_reference(2, size_px), 0)


@pytest.mark.parametrize(("patch_size", "size_px"), [(1, (8, 24)), (1, (40, 16)), (2, (48, 32))])
def test_any_size_of_whole_tokens_will_do(patch_size, size_px):
    reference = make_reference(2, size_px)
    world = World(reference, generator=make_generator(config=replace(SMALL, patch_size=patch_size)))
    world.reset()
    assert world.step(TURN).rgb_u8.shape == (1, *size_px, 3)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "a"])
def test_a_seed_that_is_no_whole_number_is_refused(reference, seed):
    with pytest.raises(InputError, match=f"seed={seed!r}: want a whole number from 0"):
        make_generator().begin(reference, seed)


@pytest.mark.parametrize("max_views", [1, 0, 2.5, "3"])
def test_wrong_numbers_of_views_are_refused(max_views):
    with pytest.raises(InputError, match=f"max_views={max_views!r}: want a whole number from 2 on"):
        make_generator(max_views=max_views)


def test_a_generator_put_together_by_hand_has_no_options():
    with pytest.raises(InputError, match="put together by hand"):
        _ = make_generator().options
