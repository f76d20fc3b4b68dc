"""Worlds for scenarios; clips and models that several scenarios share are loaded once."""

from __future__ import annotations

from inspatio_sim.generators.protocol import Generator
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenario.model import DEMO, WorldSpec
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.source import ClipSource, WorldSource
from inspatio_sim.world.world import World


class WorldMaker:
    """Makes the worlds of scenarios and keeps their clips and generators for the next one."""

    def __init__(self) -> None:
        self._kept: list[tuple[Reference, Generator]] = []

    def make(self, spec: WorldSpec) -> World:
        """Make the requested world, not yet reset.

        Raises:
            InputError: the clip or the generator cannot be used.
        """
        world = World.from_source(source_of(spec))
        self._kept.append((world.reference, world.generator))
        return world


def source_of(spec: WorldSpec) -> WorldSource:
    """The source of a scenario's world."""
    clip = ClipSource(
        paths=() if spec.video == DEMO else (str(spec.video),),
        size_px=spec.size_px,
        start_frame=spec.start_frame,
        max_frames=spec.frames,
        demo_camera=spec.camera,
        reconstruct={"method": spec.method},
    )
    config = WorldConfig(
        clock=spec.clock,
        slow_factor=spec.slow_factor,
        collisions=spec.collisions,
        body_radius_m=spec.body_radius_m,
    )
    return WorldSource(
        clip=clip,
        generator=spec.generator,
        generator_options=dict(spec.generator_options),
        prompt=spec.prompt,
        seed=spec.seed,
        config=config,
    )
