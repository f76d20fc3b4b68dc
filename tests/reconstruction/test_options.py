from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.reconstruction.options import build, check_types


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int = 3
    share: float | None = None
    kind: Literal["a", "b"] = "a"
    folder: Path | None = None
    pixel: tuple[float, float] | None = None
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        check_types(self)


def test_texts_lists_and_mappings_stand_for_paths_tuples_and_configs():
    options = {"count": 2, "share": 1, "kind": "b", "folder": "x/y", "pixel": [1, 2.5], "inner": {"share": 0.1}}
    made = build(Outer, options, "outer")
    assert made == Outer(count=2, share=1, kind="b", folder=Path("x/y"), pixel=(1, 2.5), inner=Inner(share=0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuont": 2}, "cuont=2: no option of outer: want size, count, share, kind, folder, pixel, inner"),
        ({"inner": {"shore": 1}}, "shore=1: no option of inner: want share"),
        ({"count": "2"}, "count='2': want a whole number"),
        ({"count": 2.0}, "count=2.0: want a whole number"),
        ({"count": True}, "count=True: want a whole number"),
        ({"count": None}, "count=None: want a whole number"),
        ({"share": "x"}, "share='x': want a number or None"),
        ({"kind": "c"}, "kind='c': want one of 'a', 'b'"),
        ({"kind": 1}, "kind=1: want one of 'a', 'b'"),
        ({"folder": 5}, "folder=5: want a path or None"),
        ({"pixel": [1]}, "pixel=(1,): want (a number, a number) or None"),
        ({"pixel": 1}, "pixel=1: want (a number, a number) or None"),
        ({"inner": 1}, "inner=1: want Inner or its options"),
        ({"inner": {"share": []}}, "share=(): want a number"),
    ],
)
def test_a_wrong_option_is_named_with_what_came_and_what_was_wanted(options, message):
    with pytest.raises(InputError) as caught:
        build(Outer, options, "outer", others=["size"])
    assert str(caught.value) == message


def test_long_values_are_cut():
    with pytest.raises(InputError) as caught:
        Outer(count="x" * 10_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 100
