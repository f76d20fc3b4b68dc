"""World: a place made from one clip, with one camera in it. `loop` implements `step`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike

from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError, WorldNotReset
from inspatio_sim.generators import DEFAULT_GENERATOR, generator_by_name
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.geometry.completion import depth_completion
from inspatio_sim.kernels import run_chunks
from inspatio_sim.machine.interrupts import interrupts_held
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, CameraPath
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction import Recipe
from inspatio_sim.reconstruction.auto import check_progress
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import WorldConfig, map_config_for
from inspatio_sim.world.files import read_world, write_world
from inspatio_sim.world.loop import (
    Block,
    Modes,
    Motion,
    Plan,
    Setting,
    WorldState,
    advance,
    commit,
    plan_reset,
    plan_step,
)
from inspatio_sim.world.snapshot import WorldSnapshot, snapshot_of, state_of
from inspatio_sim.world.source import DEFAULT_FOV_DEG, ClipSource, PanoramaOptions, WorldSource, paths_of


class World:
    """A place made from one clip, with one camera in it.

    Example:
        world = World.from_video("clip.mp4")
        observation = world.reset()
        observation = world.step(PoseDelta.from_twist([0, 0, 0.5], [0, 0, 0], duration_s=1.0))

    A step is one block of `generator.frames_per_block` frames at the reference's frame rate; several worlds
    step together with `step_worlds`.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        config: WorldConfig | None = None,
    ) -> None:
        """Set up the world; `reset` generates the first block.

        Args:
            reference: a clip with geometry.
            generator: the name of a generator, or a generator object.
            seed: random seed of this world.
            prompt: what the world should look like; generators without text ignore it.
            config: how the world behaves.
        """
        if not isinstance(prompt, str):
            raise InputError(f"prompt is a {type(prompt).__name__}: want a string, empty for none")
        generator = generator_by_name(generator) if isinstance(generator, str) else generator
        config = config or WorldConfig()
        config = config if config.map else replace(config, map=map_config_for(reference))
        self._setting = Setting(
            reference=reference,
            generator=generator,
            config=config,
            prompt=prompt,
            complete_depth=depth_completion(config.depth_completion, looks_real=generator.looks_real),
        )
        self._state = WorldState(
            seed=seed,
            path=CameraPath(reference.T_world_camera[0]),
            clock=self._setting.new_clock(),
            map=WorldMap(config.map),
            generator=None,
        )
        self._is_ready = False  # to step; set by `reset`

    @classmethod
    def from_source(cls, source: WorldSource, progress: Progress | None = None) -> World:
        """Make the world that a source describes; its clip is reconstructed unless that is cached.

        Raises:
            InputError: the clip or the generator cannot be used.
        """
        generator = source.load_generator(progress)  # first: missing weights should not wait for the clip
        reference, _ = source.clip.reference(progress)
        return cls(reference, generator=generator, seed=source.seed, prompt=source.prompt, config=source.config)

    @classmethod
    def from_video(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        size_px: tuple[int, int] | Literal["auto"] | None = "auto",
        start_frame: int = 0,
        max_frames: int | None = None,
        config: WorldConfig | None = None,
        **reconstruct_options: Any,
    ) -> World:
        """Read a clip, reconstruct its geometry, and make a world from it.

        Args:
            path: a video, an image, several images, a folder of images, an RGB-D folder or a saved reconstruction.
            generator: the name of a generator, or a generator object.
            seed: random seed of this world.
            prompt: what the world should look like; generators without text ignore it.
            size_px: (height, width) of the world's frames; auto: the generator's best; None: the clip's.
            start_frame: number of frames to skip at the start of the clip.
            max_frames: maximum number of frames read.
            config: how the world behaves.
            **reconstruct_options: see `inspatio_sim.reconstruction.reconstruct`.
        """
        progress = reconstruct_options.pop("progress", None)
        check_progress(progress)
        Recipe.of(reconstruct_options)  # a wrong option should not wait for the generator
        generator = generator_by_name(generator) if isinstance(generator, str) else generator
        clip = ClipSource(
            paths=paths_of(path),
            size_px=generator.best_size_px if size_px == "auto" else size_px,
            start_frame=start_frame,
            max_frames=max_frames,
            reconstruct=reconstruct_options,
        )
        return cls(clip.reference(progress)[0], generator=generator, seed=seed, prompt=prompt, config=config)

    @classmethod
    def from_panorama(
        cls,
        path: str | Path,
        depth: str | Path | None = None,
        *,
        generator: str | Generator = DEFAULT_GENERATOR,
        seed: int = 0,
        prompt: str = "",
        size_px: tuple[int, int] | Literal["auto"] | None = "auto",
        config: WorldConfig | None = None,
        **reconstruct_options: Any,
    ) -> World:
        """Make a world from an equirectangular panorama; the camera starts at its viewpoint, facing the image centre.

        Args:
            path: an image, twice as wide as high, level.
            depth: distance along the ray in the same directions (16-bit png in millimetres; npy or exr in metres).
            generator: the name of a generator, or a generator object.
            seed: random seed of this world.
            prompt: what the world should look like; generators without text ignore it.
            size_px: (height, width) of the world's frames; auto: the generator's best; None: as fine as
                the panorama.
            config: how the world behaves.
            **reconstruct_options: see `inspatio_sim.reconstruction.panorama.method.reconstruct_panorama`.
        """
        generator = generator_by_name(generator) if isinstance(generator, str) else generator
        fov_deg = reconstruct_options.pop("fov_deg", DEFAULT_FOV_DEG)
        clip = ClipSource(
            paths=paths_of(path),
            size_px=generator.best_size_px if size_px == "auto" else size_px,
            panorama=PanoramaOptions(depth=None if depth is None else str(depth), fov_deg=fov_deg),
            reconstruct=reconstruct_options,
        )
        return cls(clip.reference()[0], generator=generator, seed=seed, prompt=prompt, config=config)

    def reset(self, *, seed: int | None = None, T_world_camera: ArrayLike | None = None) -> Observation:
        """Start over: empty map, first reference frame, camera at the first reference pose or the one given.

        The first block, `generator.first_block_frames` long, is seen from there. If anything fails, the world is
        unchanged.
        """
        return reset_worlds([self], [seed], [T_world_camera])[0]

    def step(self, motion: Motion, clock: Modes = None) -> Observation:
        """Move the camera by `motion` over one block of frames.

        A step that fails leaves the world unchanged, so you can retry it.

        Args:
            motion: in the current camera frame, for the whole block or one for each of its frames; obstacles may
                cut it short.
            clock: how the clip plays during this block, or at each of its frames; None: as configured.

        Raises:
            WorldNotReset: if `reset` was never called.
            NotEnoughMemory: the generator does not fit the device.
            GenerationFailed: the generator's output is not an image (NaN).
        """
        return step_worlds([self], [motion], [clock])[0]

    def snapshot(self) -> WorldSnapshot:
        """Everything that `restore` needs to continue bit-exactly from here."""
        self._check_is_ready("snapshot")
        return snapshot_of(self._setting, self._state)

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Restore a snapshot of this world or of one made the same way; an invalid one changes nothing."""
        self._state = state_of(self._setting, snapshot)
        self._is_ready = True

    def save(self, folder: str | Path) -> None:
        """Write the world and all its state to a folder, atomically."""
        write_world(self._setting, self.snapshot(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> World:
        """Load a world that `save` wrote; it continues bit-exactly."""
        saved = read_world(Path(folder))
        world = cls(
            saved.reference,
            generator=generator_by_name(saved.generator, **saved.generator_options),
            prompt=saved.prompt,
            config=saved.config,
        )
        world.restore(saved.snapshot)
        return world

    @property
    def reference(self) -> Reference:
        """The clip with geometry."""
        return self._setting.reference

    @property
    def generator(self) -> Generator:
        """The generator of the frames."""
        return self._setting.generator

    @property
    def config(self) -> WorldConfig:
        """How the world behaves."""
        return self._setting.config

    @property
    def prompt(self) -> str:
        """What the world should look like."""
        return self._setting.prompt

    @property
    def seed(self) -> int:
        """The random seed since the last reset."""
        return self._state.seed

    @property
    def map(self) -> WorldMap:
        """The map of everything seen so far; it keeps growing."""
        return self._state.map

    @property
    def clock(self) -> Clock:
        """The clock that says which moment of the clip is shown."""
        return self._state.clock

    @property
    def T_world_camera(self) -> Array:
        """The camera pose. [4, 4]"""
        return self._state.path.T_world_camera

    def _check_is_ready(self, verb: str) -> None:
        if not self._is_ready:
            raise WorldNotReset(
                f"World.{verb} before World.reset, or after a step ran out of memory for its map: call reset() first"
            )

    def plan_reset(self, seed: int | None, T_world_camera: ArrayLike | None) -> Plan:
        """Plan what `reset` would show; nothing changes."""
        return plan_reset(self._setting, self.seed if seed is None else seed, T_world_camera)

    def plan_step(self, motion: Motion, clock: Modes) -> Plan:
        """Plan what `step` would show; nothing changes."""
        self._check_is_ready("step")
        return plan_step(self._setting, self._state, motion, clock)

    def _commit(self, plan: Plan, block: Block) -> None:
        if plan.state.map is self.map:
            self._is_ready = False  # a half-written map is useless
        self._state = commit(plan, block)
        self._is_ready = True


def step_worlds(
    worlds: Sequence[World], motions: Sequence[Motion], clocks: Sequence[Modes] | None = None
) -> list[Observation]:
    """Step every world by one block, in one call of the generator they share.

    Results equal those of stepping the worlds one by one: bit-exact with `warp`, up to rounding with a network, since a
    product of more rows may be summed in another order. If anything fails, no world changes.

    Args:
        worlds: different worlds with the same generator object, all reset.
        motions: one for each world, as for `World.step`.
        clocks: how each clip plays; None: as configured.

    Raises:
        WorldNotReset: if a world was never reset.
    """
    started_s = time.perf_counter()
    clocks = len(worlds) * [None] if clocks is None else clocks
    _check_batch(worlds, motions=motions, clocks=clocks)
    plans = [world.plan_step(motion, clock) for world, motion, clock in zip(worlds, motions, clocks, strict=True)]
    return _advance_worlds(worlds, plans, started_s)


def reset_worlds(
    worlds: Sequence[World],
    seeds: Sequence[int | None] | None = None,
    poses: Sequence[ArrayLike | None] | None = None,
) -> list[Observation]:
    """Start every world over and show its first block, in one call of the generator they share.

    If anything fails, no world changes.

    Args:
        worlds: different worlds with the same generator object.
        seeds: a new seed for each world; None: keep the current one.
        poses: where each camera starts; None: at its first reference pose. [4, 4] each
    """
    started_s = time.perf_counter()
    seeds = len(worlds) * [None] if seeds is None else seeds
    poses = len(worlds) * [None] if poses is None else poses
    _check_batch(worlds, seeds=seeds, poses=poses)
    plans = [world.plan_reset(seed, pose) for world, seed, pose in zip(worlds, seeds, poses, strict=True)]
    return _advance_worlds(worlds, plans, started_s)


def _advance_worlds(worlds: Sequence[World], plans: Sequence[Plan], started_s: float) -> list[Observation]:
    """Generate the planned blocks, then commit them to all worlds; Ctrl-C waits until all have theirs."""
    if not worlds:
        return []
    blocks = advance(plans, started_s)
    advanced_s = time.perf_counter()
    with interrupts_held():
        run_chunks(World._commit, list(zip(worlds, plans, blocks, strict=True)))
    map_s = time.perf_counter() - advanced_s
    return [block.observation.with_map_time(map_s) for block in blocks]


def _check_batch(worlds: Sequence[World], **asked: Sequence[object]) -> None:
    for name, values in asked.items():
        if len(values) != len(worlds):
            raise InputError(f"{name}: {len(values)} for {len(worlds)} worlds: want one for each")
    if len({id(world) for world in worlds}) != len(worlds):
        raise InputError("worlds: one world is listed twice: want different worlds")
    if len({id(world.generator) for world in worlds}) > 1:
        raise InputError("worlds: different generators: want the same generator object in all of them")
