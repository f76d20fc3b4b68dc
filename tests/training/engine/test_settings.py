from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.settings import apply_settings


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InputError(f"lr={self.lr}: want more than 0")


@dataclass(frozen=True, kw_only=True)
class Run:
    max_steps: int = 10
    out: Path = Path("runs")
    name: str = "a"
    is_fast: bool = False
    limit: int | None = 3
    sizes: tuple[int, ...] = (1, 2)
    optimiser: Optimiser = field(default_factory=Optimiser)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("max_steps=4", Run(max_steps=4)),
        ("optimiser.lr=1e-4", Run(optimiser=Optimiser(lr=1e-4))),
        ("optimiser.betas=0,0.99", Run(optimiser=Optimiser(betas=(0.0, 0.99)))),
        ("optimiser.kind=sgd", Run(optimiser=Optimiser(kind="sgd"))),
        ("out=/tmp/a=b", Run(out=Path("/tmp/a=b"))),
        ("name=", Run(name="")),
        ("is_fast=True", Run(is_fast=True)),
        ("limit=none", Run(limit=None)),
        ("limit=7", Run(limit=7)),
        ("sizes=(4, 5, 6)", Run(sizes=(4, 5, 6))),
        ("sizes=", Run(sizes=())),
    ],
)
def test_values(setting: str, expected: Run) -> None:
    assert apply_settings(Run(), [setting]) == expected


def test_several_and_the_last_word() -> None:
    config = apply_settings(Run(), ["optimiser.lr=1", "max_steps=2", "optimiser.lr=3", "optimiser.kind=sgd"])
    assert config == Run(max_steps=2, optimiser=Optimiser(lr=3.0, kind="sgd"))
    assert Run() == Run(max_steps=10)


@given(lr=st.floats(min_value=1e-300, allow_infinity=False), steps=st.integers(), name=st.text(alphabet="ab=. \t"))
def test_round_trip(lr: float, steps: int, name: str) -> None:
    config = apply_settings(Run(), [f"optimiser.lr={lr!r}", f"max_steps={steps}", f"name={name}"])
    assert config == Run(max_steps=steps, name=name.strip(), optimiser=Optimiser(lr=lr))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_stepps=4", "Run has no field max_stepps: did you mean max_steps?"),
        ("optimiser.rate=4", "Optimiser has no field rate: want one of lr, betas, kind"),
        ("max_steps", "want name=value, such as trainer.max_steps=4"),
        ("=4", "want name=value"),
        ("max_steps=4.5", "want a whole number for max_steps, got '4.5'"),
        ("max_steps=1e4", "want a whole number for max_steps, got '1e4'"),
        ("is_fast=2", "want true or false for is_fast, got '2'"),
        ("limit=some", "want a whole number or none for limit, got 'some'"),
        ("optimiser.kind=lion", "want one of adam, sgd for kind, got 'lion'"),
        ("optimiser.betas=1", "want 2 values with commas between (a number, a number) for betas, got '1'"),
        ("sizes=1,x", "want a list (a whole number each), such as 1,2,3 for sizes, got '1,x'"),
        ("optimiser=4", "optimiser is a group of settings: want one of optimiser.lr, optimiser.betas"),
        ("max_steps.more=4", "max_steps is a single value, it has no more"),
        ("optimiser.lr=-1", "lr=-1.0: want more than 0"),
    ],
)
def test_errors(setting: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        apply_settings(Run(), [setting])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
