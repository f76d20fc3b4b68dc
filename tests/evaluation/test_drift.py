import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.drift import Rounds, worst_departure


@pytest.fixture
def film():
    """One round of four frames, three times, and one frame more."""
    one = np.random.default_rng(0).integers(0, 200, (4, 6, 8, 3)).astype(np.uint8)
    return np.concatenate([one, one, one, one[:1]])


def test_rounds_that_repeat_do_not_drift(film):
    rounds = Rounds.of(film, 4)
    assert len(rounds.mean) == 3
    assert rounds.mean[0] == pytest.approx(film[:4].mean())
    assert rounds.variance[0] == pytest.approx(film[:4].var())
    assert max(worst_departure(x) for x in (rounds.mean, rounds.variance, rounds.change)) < 1e-12


def test_brighter_and_flatter_and_frozen(film):
    brighter, flatter, frozen = film.copy(), film.copy(), film.copy()
    brighter[8:] += 50
    flatter[8:] = flatter[8:] // 2 + 50
    frozen[8:] = frozen[8]
    assert worst_departure(Rounds.of(brighter, 4).mean) == pytest.approx(50 / film[:4].mean())
    assert worst_departure(Rounds.of(brighter, 4).variance) < 1e-12
    assert worst_departure(Rounds.of(flatter, 4).variance) == pytest.approx(0.75, abs=0.01)
    assert Rounds.of(frozen, 4).change[-1] == 0


def test_too_short_a_film_is_refused(film):
    with pytest.raises(InputError, match="13 frames in rounds of 14"):
        Rounds.of(film, 14)
    with pytest.raises(InputError, match="want whole rounds"):
        Rounds.of(film, 1)
