"""The table of generators: what each is called, what it can be told and what it will make, before weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from inspatio_sim.errors import InputError
from inspatio_sim.generators.options import FrameOptions, StarOptions, WarpOptions
from inspatio_sim.latents import TEMPORAL_STRIDE

if TYPE_CHECKING:
    from inspatio_sim.generators.presets.registry import Preset
    from inspatio_sim.generators.protocol import Generator
    from inspatio_sim.generators.star.warm_up import WarmUp
    from inspatio_sim.progress import Progress

GeneratorName = Literal["star", "frame", "warp"]
GENERATORS: tuple[str, ...] = get_args(GeneratorName)
DEFAULT_GENERATOR: GeneratorName = "star"

Options = StarOptions | FrameOptions | WarpOptions


@dataclass(frozen=True, kw_only=True)
class GeneratorKind:
    """One kind of generator. Options are given by name, as `options` has them."""

    name: GeneratorName
    options: type[Options]
    make: Callable[..., Generator]  # from checked options, and the arguments of `load`
    reads_prompt: bool = False  # a world's prompt tells it something
    block_option: str | None = None  # the option that sets the length of blocks
    frames_per_unit: int = 1  # frames that each of it adds
    warm_up: Callable[..., WarmUp] | None = None  # see `star.warm_up`; None: nothing is compiled ahead of its use

    @property
    def presets(self) -> dict[str, Preset]:
        """The models that it can be; none where nothing is trained."""
        from inspatio_sim.generators.presets.registry import PRESETS  # heavy

        return {name: preset for name, preset in PRESETS.items() if preset.generator == self.name}

    @property
    def defaults(self) -> dict[str, Any]:
        """Every option as it is where nothing is given."""
        return {option.name: option.default for option in fields(self.options)}

    def checked(self, options: Mapping[str, Any]) -> Options:
        """The options, checked as far as they can be before a file is read.

        Raises:
            InputError: it has no such option, or an option cannot have this value.
        """
        if unknown := set(options) - set(self.defaults):
            raise InputError(f"generator {self.name!r} has no option {', '.join(sorted(unknown))}")
        return self.options(**options)

    def frames_per_block(self, options: Mapping[str, Any]) -> int:
        """Frames of every block but the first."""
        return self.checked(options).frames_per_block

    def best_size_px(self, options: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of the frames it makes best; a world's may be others."""
        from inspatio_sim.generators.presets.registry import preset_by_name  # heavy

        chosen = self.checked(options)
        return (
            chosen.best_size_px if isinstance(chosen, WarpOptions) else preset_by_name(chosen.preset, self.name).size_px
        )

    def of_block(self, block_frames: int) -> dict[str, int]:
        """The option that makes blocks of so many frames.

        Raises:
            InputError: it cannot make such.
        """
        if self.block_option is None:
            if block_frames != self.frames_per_unit:
                raise InputError(f"block_frames={block_frames}: want {self.frames_per_unit} with {self.name}")
            return {}
        if block_frames % self.frames_per_unit:
            wanted = f"a multiple of {self.frames_per_unit} with {self.name}"
            raise InputError(f"block_frames={block_frames}: want {wanted}")
        return {self.block_option: block_frames // self.frames_per_unit}

    @property
    def shortest_block(self) -> dict[str, int]:
        """The option that makes blocks as short as can be: actions show soonest."""
        return {self.block_option: 1} if self.block_option else {}

    def load(
        self,
        options: Mapping[str, Any],
        *,
        size_px: tuple[int, int] | None = None,
        batch: int = 1,
        progress: Progress | None = None,
    ) -> Generator:
        """Make a generator.

        Args:
            options: by name.
            size_px: (height, width) of the frames to come, if known: memory is checked before anything is loaded.
            batch: worlds to come at once.
            progress: told the share loaded, and later of other work that takes long.

        Raises:
            InputError: an option cannot be, or files are missing (names each one and where it is published).
            CheckpointMismatch: weights are not those of the preset.
            NotEnoughMemory: it would not fit; names a setting that would.
        """
        return self.make(self.checked(options), size_px=size_px, batch=batch, progress=progress)


def _star(options: StarOptions, **setting: Any) -> Generator:
    from inspatio_sim.generators.star.load import load_star  # heavy

    return load_star(options, **setting)


def _star_warm_up(*args: Any, **setting: Any) -> WarmUp:
    from inspatio_sim.generators.star.warm_up import warm_up  # heavy

    return warm_up(*args, **setting)


def _frame(options: FrameOptions, **setting: Any) -> Generator:
    from inspatio_sim.generators.frame.load import load_frame  # heavy

    return load_frame(options, **setting)


def _warp(options: WarpOptions, **setting: Any) -> Generator:
    from inspatio_sim.generators.warp import WarpGenerator  # heavy

    del setting  # nothing is loaded
    return WarpGenerator(frames_per_block=options.frames_per_block)


KINDS: dict[str, GeneratorKind] = {
    kind.name: kind
    for kind in (
        GeneratorKind(
            name="star",
            options=StarOptions,
            make=_star,
            reads_prompt=True,
            block_option="block_latents",
            frames_per_unit=TEMPORAL_STRIDE,
            warm_up=_star_warm_up,
        ),
        GeneratorKind(name="frame", options=FrameOptions, make=_frame),
        GeneratorKind(name="warp", options=WarpOptions, make=_warp, block_option="frames_per_block"),
    )
}


def kind_by_name(name: str) -> GeneratorKind:
    """An entry of the table.

    Raises:
        InputError: no generator has this name.
    """
    if name not in KINDS:
        raise InputError(f"generator {name!r}: want one of {', '.join(KINDS)}")
    return KINDS[name]


def generator_by_name(
    name: str,
    *,
    size_px: tuple[int, int] | None = None,
    batch: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> Generator:
    """Make a generator with its options; see `GeneratorKind.load`."""
    return kind_by_name(name).load(options, size_px=size_px, batch=batch, progress=progress)


def name_of(generator: Generator) -> str:
    """The name under which a generator can be made again.

    Raises:
        InputError: it is none of the table.
    """
    name = getattr(generator, "name", None)
    if name not in KINDS:
        came = type(generator).__name__
        raise InputError(f"generator is a {came}: only {', '.join(KINDS)} can be found again by name")
    return name
