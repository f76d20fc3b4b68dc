"""A made-up place in a few plain words."""

from __future__ import annotations

from collections import Counter

from inspatio_sim.training.data.procedural_scenes import Place, Thing

MAX_THINGS = 3  # named that stand still, and as many that move


def caption(place: Place, seen: Counter[int]) -> str:
    """Layout, surfaces, and the things that are seen most, with their colours and motions.

    Args:
        place: what is there.
        seen: place in `place.things` -> how much of the pictures it fills.
    """
    if place.layout == "open":
        sentences = [f"{_a(f'wide open space with a {place.floor} ground')}."]
    else:
        sentences = [f"{_a(place.layout)} with {place.walls} walls and {_a(place.floor).lower()} floor."]
    things = [place.things[number] for number, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))]
    sentences += [f"{_name(thing)} {thing.motion}." for thing in things if thing.motion][:MAX_THINGS]
    standing = [_name(thing) for thing in things if not thing.motion][:MAX_THINGS]
    if standing:
        listed = " and ".join([", ".join([standing[0], *map(_lower, standing[1:-1])]), *map(_lower, standing[1:][-1:])])
        sentences.append(f"{listed} {'stands' if len(standing) == 1 else 'stand'} on the floor.")
    return " ".join(sentences)


def _name(thing: Thing) -> str:
    return _a(f"{thing.color} {thing.name}")


def _a(noun: str) -> str:
    """With its article, as at the start of a sentence."""
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def _lower(words: str) -> str:
    return words[0].lower() + words[1:]
