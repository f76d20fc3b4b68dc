"""All that `inspatio-sim train` can be asked for, by the names that are typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.family import Family
from inspatio_sim.training.frame.build import FRAME
from inspatio_sim.training.star.build import STAR

PREPARE, SHIP = "prepare", "ship"  # train nothing


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage and its family, or what else is to be done with a run of that family."""

    family: Family[Any]
    stage: str  # a key of `family.stages`, PREPARE or SHIP

    @property
    def is_trained(self) -> bool:
        return self.stage in self.family.stages


WORK: dict[str, Work] = {
    **{kind.key: Work(family=STAR, stage=stage) for stage, kind in STAR.stages.items()},
    "star/prepare": Work(family=STAR, stage=PREPARE),
    "star/ship": Work(family=STAR, stage=SHIP),
    **{kind.key: Work(family=FRAME, stage=stage) for stage, kind in FRAME.stages.items()},
    "frame/ship": Work(family=FRAME, stage=SHIP),
}


def work_called(key: str) -> Work:
    """What a name that was typed stands for."""
    if key not in WORK:
        raise InputError(f"train {key[:40]}: want one of {', '.join(WORK)}")
    return WORK[key]
