"""Make a world from the parameters: read and reconstruct the clip, load the generator."""

from __future__ import annotations

from typing import Any, cast

from inspatio_ros.parameters import Parameters, mapping
from inspatio_sim.errors import InputError
from inspatio_sim.generators import kind_by_name
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.obstacles import Collisions
from inspatio_sim.world.source import DEMO_SIZE_PX, ClipSource
from inspatio_sim.world.world import World


def load_world(parameters: Parameters, progress: Progress) -> tuple[World, ClipSource]:
    """The world of the parameters, not yet reset, and its source.

    Raises:
        InputError: the clip or the generator cannot be used; one line says why.
    """
    if (parameters.height_px == 0) != (parameters.width_px == 0):
        raise InputError(f"height_px={parameters.height_px}, width_px={parameters.width_px}: want both, or neither (0)")
    asked_px = (parameters.height_px, parameters.width_px) if parameters.height_px else None
    generator = load_generator(parameters, asked_px, progress)
    is_demo_room = not parameters.video
    is_trained = bool(kind_by_name(parameters.generator).presets)
    size_px = asked_px or (generator.best_size_px if is_trained or not is_demo_room else DEMO_SIZE_PX)
    source = ClipSource(
        paths=() if is_demo_room else (parameters.video,),
        size_px=size_px,
        start_frame=parameters.start_frame,
        max_frames=parameters.max_frames or None,
        fps=parameters.fps or None,
        reconstruct=mapping("reconstruct_options", parameters.reconstruct_options),
    )
    reference, _ = source.reference(progress)
    if asked_px and reference.size_px != asked_px:
        height_px, width_px = reference.size_px
        raise InputError(f"{parameters.video}: is {height_px} x {width_px} px: want this size, or 0")
    config = WorldConfig(
        clock=cast(ClockMode, parameters.reference_clock),
        collisions=cast(Collisions, parameters.collisions),
        body_radius_m=parameters.body_radius_m,
    )
    world = World(reference, generator=generator, seed=parameters.seed, prompt=parameters.prompt, config=config)
    return world, source


def load_generator(parameters: Parameters, size_px: tuple[int, int] | None, progress: Progress) -> Generator:
    """The generator with its options; `block_frames` is translated to the generator's own option."""
    kind = kind_by_name(parameters.generator)
    options: dict[str, Any] = mapping("generator_options", parameters.generator_options)
    if parameters.block_frames:
        options = {**kind.of_block(parameters.block_frames), **options}
    return kind.load(options, size_px=size_px, progress=progress)
