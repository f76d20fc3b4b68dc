"""Parameters become a world: the clip is read and reconstructed, the generator loaded."""

from __future__ import annotations

from typing import Any, cast

from inspatio_ros.parameters import Parameters, mapping
from inspatio_sim.bags.session import DEMO_SIZE_PX, ClipSource
from inspatio_sim.cli.terminal import ProgressCallback
from inspatio_sim.errors import InputError
from inspatio_sim.generators import Generator, generator_by_name
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.obstacles import Collisions
from inspatio_sim.world.world import World, WorldConfig


def load_world(parameters: Parameters, progress: ProgressCallback) -> tuple[World, ClipSource]:
    """The world that the parameters ask for, not reset, and where it comes from.

    Raises:
        InputError: the clip or the generator cannot be used; one line says why.
    """
    if (parameters.height_px == 0) != (parameters.width_px == 0):
        raise InputError(f"height_px={parameters.height_px}, width_px={parameters.width_px}: want both, or neither (0)")
    asked_px = (parameters.height_px, parameters.width_px) if parameters.height_px else None
    generator = load_generator(parameters, asked_px, progress)
    is_demo_room = not parameters.video
    size_px = asked_px or (DEMO_SIZE_PX if is_demo_room and parameters.generator == "warp" else generator.best_size_px)
    source = ClipSource(
        video=() if is_demo_room else (parameters.video,),
        size_px=size_px,
        start_frame=parameters.start_frame,
        max_frames=parameters.max_frames or None,
        fps=parameters.fps or None,
        reconstruct=mapping("reconstruct_options", parameters.reconstruct_options),
    )
    reference = source.reference(progress)
    if asked_px and reference.frames_u8.shape[1:3] != asked_px:
        height_px, width_px = reference.frames_u8.shape[1:3]
        raise InputError(f"{parameters.video}: is {height_px} x {width_px} px: want these, or none")
    config = WorldConfig(
        clock=cast(ClockMode, parameters.reference_clock),
        collisions=cast(Collisions, parameters.collisions),
        body_radius_m=parameters.body_radius_m,
    )
    world = World(reference, generator=generator, seed=parameters.seed, prompt=parameters.prompt, config=config)
    return world, source


def load_generator(parameters: Parameters, size_px: tuple[int, int] | None, progress: ProgressCallback) -> Generator:
    """The generator with its options; `block_frames` in the generator's own words."""
    options: dict[str, Any] = mapping("generator_options", parameters.generator_options)
    num_frames = parameters.block_frames
    if parameters.generator == "warp":
        if num_frames:
            options.setdefault("frames_per_block", num_frames)
        return generator_by_name("warp", **options)
    if parameters.generator == "frame":
        if num_frames > 1:
            raise InputError(f"block_frames={num_frames}: want 1 with frame, or 0")
        return generator_by_name("frame", size_px=size_px, progress=progress, **options)
    from inspatio_sim.generators.star.generator import TEMPORAL_STRIDE  # heavy

    if num_frames:
        if num_frames % TEMPORAL_STRIDE:
            raise InputError(f"block_frames={num_frames}: want a multiple of {TEMPORAL_STRIDE} with star")
        options.setdefault("block_latents", num_frames // TEMPORAL_STRIDE)
    return generator_by_name("star", size_px=size_px, progress=progress, **options)
