import hashlib
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.text.hashed import MAX_WORDS, HashedWords, split_words

words = st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8), max_size=MAX_WORDS)

ROOM = "a bright living room with a grey sofa and a wooden table"


def similarity(a: str, b: str) -> float:
    encoder = HashedWords()
    return torch.cosine_similarity(encoder.encode(a).flatten(), encoder.encode(b).flatten(), dim=0).item()


def by_hand(prompt: str, text_dim: int, text_len: int) -> torch.Tensor:
    """The formula in exact fractions, up to the square root."""
    sums = [[Fraction(0)] * text_dim for _ in range(text_len)]
    for word in prompt.split():
        digest = hashlib.shake_256(word.encode()).digest(8 + 8 * text_dim)
        row = sums[int.from_bytes(digest[:8], "little") % text_len]
        for i in range(text_dim):
            terms = [int.from_bytes(digest[8 + 8 * i + 2 * j :][:2], "little") for j in range(4)]
            row[i] += sum(terms) - Fraction(4 * 65535, 2)
    result = torch.zeros(text_len, text_dim)
    for r, row in enumerate(sums):
        rms = math.sqrt(sum(value**2 for value in row) / text_dim)
        if rms:
            result[r] = torch.tensor([float(value) / rms for value in row])
    return result


@pytest.mark.parametrize(("text_dim", "text_len"), [(64, 8), (5, 3), (1, 1)])
def test_is_the_documented_formula(text_dim, text_len):
    prompt = "a red car and a blue car"
    encoder = HashedWords(text_dim=text_dim, text_len=text_len)
    torch.testing.assert_close(encoder.encode(prompt), by_hand(prompt, text_dim, text_len), rtol=1e-6, atol=0)


def test_bytes_never_change():
    """Trained weights rely on these numbers: on every machine, with every version of numpy and torch."""
    rows = HashedWords().encode(ROOM).numpy().astype("<f4")
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:32] == "a6c641a70b8187ad1753540db645de8f"


@settings(max_examples=40, deadline=None)
@given(words=words, seed=st.randoms(use_true_random=False))
def test_rows_are_of_unit_scale_whatever_the_order(words, seed):
    rows = HashedWords().encode(" ".join(words))
    assert rows.shape == (8, 64)
    assert rows.dtype == torch.float32
    rms = rows.square().mean(dim=1).sqrt()
    assert bool(((rms - 1).abs() < 1e-5).logical_or(rms == 0).all())
    assert bool(rows.any()) == bool(words)
    shuffled = list(words)
    seed.shuffle(shuffled)
    assert torch.equal(HashedWords().encode(" ".join(shuffled)), rows)


@settings(max_examples=40, deadline=None)
@given(words=words.filter(lambda words: 0 < len(words) < MAX_WORDS), new=st.integers(0, 10**6))
def test_one_word_more_changes_one_row(words, new):
    encoder = HashedWords()
    before, after = encoder.encode(" ".join(words)), encoder.encode(" ".join([*words, f"neü{new}"]))
    assert int((before != after).any(dim=1).sum()) == 1


def test_spelling_that_means_the_same_gives_the_same():
    expected = HashedWords().encode("it's a red car")
    for prompt in (
        "It's a RED car!",
        "  it's\ta\n red   car ",
        "it&#39;s a red car",
        "it's a ｒｅｄ car",
        "it's a red_car",
    ):
        assert torch.equal(HashedWords().encode(prompt), expected), prompt


def test_alike_prompts_are_near_and_others_are_not():
    assert similarity(ROOM, ROOM.replace("grey", "green")) > 0.75
    assert similarity(ROOM, f"{ROOM} at night") > 0.75
    assert abs(similarity(ROOM, "forest path under snow, two deer")) < 0.2
    assert 0.2 < similarity(ROOM, "a bright kitchen with two chairs") < 0.75  # in between


def test_words_are_nearly_orthogonal_and_look_normal():
    encoder = HashedWords(text_len=1)
    rows = torch.cat([encoder.encode(f"word{i}") for i in range(200)])
    cosine = (rows @ rows.T / 64).fill_diagonal_(0)
    assert cosine.abs().max() < 0.6
    assert cosine.pow(2).mean().sqrt() == pytest.approx(1 / 8, rel=0.1)  # 1 / sqrt(text_dim)
    assert rows.mean().abs() < 0.05
    assert rows.pow(4).mean() == pytest.approx(2.7, abs=0.2)  # four uniform terms: 2.7, a normal number: 3


def test_words_are_spread_over_all_rows():
    hits = [bool(HashedWords().encode(f"word{i}")[row].any()) for i in range(400) for row in range(8)]
    counts = torch.tensor(hits).reshape(400, 8).sum(dim=0)
    assert counts.sum() == 400
    assert counts.min() > 25


@pytest.mark.parametrize("prompt", ["", " \n\t", "&nbsp;", "... !"])
def test_nothing_said_is_the_null_prompt(prompt):
    assert not HashedWords().encode(prompt).any()


def test_bad_input_is_refused():
    encoder = HashedWords()
    assert encoder.encode("word " * MAX_WORDS).any()
    with pytest.raises(InputError, match="prompt: 65 words, want at most 64"):
        encoder.encode("word " * (MAX_WORDS + 1))
    with pytest.raises(InputError, match="prompt: is a NoneType: want a string"):
        encoder.encode(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="prompt: character 3 is not valid Unicode"):
        encoder.encode("a \udcff")
    with pytest.raises(InputError, match="text_len=0: want 1 or more"):
        HashedWords(text_len=0)
    with pytest.raises(InputError, match="text_dim=-1"):
        HashedWords(text_dim=-1)


def test_identity_tells_shapes_apart():
    assert len({HashedWords().identity, HashedWords(text_dim=32).identity, HashedWords(text_len=4).identity}) == 3


def test_words_of_a_prompt():
    assert split_words("Zwei grüne Bäume &amp; 3 cars.") == ["zwei", "grüne", "bäume", "3", "cars"]
