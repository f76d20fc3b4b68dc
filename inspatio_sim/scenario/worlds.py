"""Worlds for scenarios: clips and models that several scenarios share are made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import Generator, generator_by_name
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.cache import cached_reference
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenario.model import DEMO, WorldSpec
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.world import World, WorldConfig

DEMO_FRAMES = 48


class WorldMaker:
    """Makes the worlds of scenarios, and keeps clips and generators for the next one."""

    def __init__(self) -> None:
        self._references: dict[tuple[Any, ...], Reference] = {}
        self._generators: dict[str, Generator] = {}

    def make(self, spec: WorldSpec) -> World:
        """A world as asked for, not reset.

        Raises:
            InputError: the clip or the generator cannot be used.
        """
        config = WorldConfig(
            clock=spec.clock,
            slow_factor=spec.slow_factor,
            collisions=spec.collisions,
            body_radius_m=spec.body_radius_m,
        )
        generator = self._generator(spec)
        reference = self._reference(spec)
        return World(reference, generator=generator, seed=spec.seed, prompt=spec.prompt, config=config)

    def _generator(self, spec: WorldSpec) -> Generator:
        key = repr((spec.generator, sorted(spec.generator_options)))
        if key not in self._generators:
            try:
                self._generators[key] = generator_by_name(spec.generator, **dict(spec.generator_options))
            except TypeError as error:  # a text where a number belongs, say
                raise InputError(f"generator_options: {error}") from error
        return self._generators[key]

    def _reference(self, spec: WorldSpec) -> Reference:
        key = (spec.video, spec.size_px, spec.start_frame, spec.frames, spec.camera, spec.method)
        if key not in self._references:
            self._references[key] = _find_reference(spec)
        return self._references[key]


def _find_reference(spec: WorldSpec) -> Reference:
    if spec.video == DEMO:
        frames = spec.frames or DEMO_FRAMES
        return reconstruct(demo_clip(num_frames=frames, size_px=spec.size_px, camera=spec.camera), method="rgbd")

    def make() -> Reference:
        return reconstruct(read_clip(spec.video, **part), method=spec.method)

    part = {"size_px": spec.size_px, "start_frame": spec.start_frame, "max_frames": spec.frames}
    return cached_reference(clip_files(Path(spec.video)), {"scenario": True, **part, "method": spec.method}, make)[0]
