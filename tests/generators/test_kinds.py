"""What is said of a generator before it is loaded, against what it is afterwards."""

import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.generators import GENERATORS, KINDS, generator_by_name, kind_by_name, name_of
from inspatio_sim.generators.options import StarOptions
from inspatio_sim.generators.presets.registry import PRESETS

RANDOM = {"random_weights": True, "device": "cpu", "dtype": "float32"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("star", RANDOM),
        ("star", {**RANDOM, "block_latents": 1}),
        ("frame", {**RANDOM, "max_views": 4}),
        ("warp", {}),
        ("warp", {"frames_per_block": 5}),
    ],
)
def test_a_generator_is_what_its_kind_said(name, options):
    kind = kind_by_name(name)
    generator = generator_by_name(name, **options)
    assert kind.frames_per_block(options) == generator.frames_per_block
    assert kind.best_size_px(options) == generator.best_size_px
    assert name_of(generator) == name
    assert kind.load(generator.options).options == generator.options
    assert {**generator.options, **options} == generator.options
    assert generator.options.keys() == kind.defaults.keys()


def test_every_preset_is_for_one_kind():
    assert tuple(KINDS) == GENERATORS
    by_kind = [name for kind in KINDS.values() for name in kind.presets]
    assert sorted(by_kind) == sorted(PRESETS)
    assert not KINDS["warp"].presets
    assert KINDS["star"].best_size_px({"preset": "inspatio-1.3b"}) == (480, 832)


def test_block_lengths_in_the_words_of_the_generator():
    assert KINDS["star"].of_block(8) == {"block_latents": 2}
    assert KINDS["warp"].of_block(5) == {"frames_per_block": 5}
    assert KINDS["frame"].of_block(1) == {}
    assert [kind.shortest_block for kind in KINDS.values()] == [{"block_latents": 1}, {}, {"frames_per_block": 1}]
    for name, block_frames, message in (
        ("star", 5, "block_frames=5: want a multiple of 4 with star"),
        ("frame", 2, "block_frames=2: want 1 with frame"),
    ):
        with pytest.raises(InputError, match=message):
            KINDS[name].of_block(block_frames)


def test_mistakes_are_told_before_anything_is_loaded():
    for name, options, message in (
        ("nothing", {}, "generator 'nothing': want one of star, frame, warp"),
        ("star", {"colour": "red", "max_views": 3}, "generator 'star' has no option colour, max_views"),
        ("star", {"block_latents": 4}, "block_latents=4: want a whole number from 1"),
        ("star", {"preset": "frame-tiny"}, "'frame-tiny': is for the generator frame, not star: want one of tiny"),
        ("frame", {"preset": "nothing"}, "preset 'nothing': want one of frame-tiny"),
        ("warp", {"frames_per_block": 0}, "frames_per_block=0: want a whole number from 1 to 1000"),
    ):
        with pytest.raises(InputError, match=message):
            kind_by_name(name).best_size_px(options)
    with pytest.raises(InputError, match="generator is a StarOptions: only star, frame, warp can be found again"):
        name_of(StarOptions())  # pyright: ignore[reportArgumentType]
