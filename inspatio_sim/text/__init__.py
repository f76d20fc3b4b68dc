"""A prompt goes in; rows of an embedding that the generator attends to come out.

`HashedWords` needs no weights and serves the `tiny` preset; `Umt5` is the encoder of the Wan models, read from a
local folder; `NullText` stands in where there is none; `CachedText` keeps what any of them made.
"""

from inspatio_sim.text.cache import CachedText
from inspatio_sim.text.hashed import HashedWords
from inspatio_sim.text.null import NullText
from inspatio_sim.text.protocol import TextEncoder
from inspatio_sim.text.umt5 import Umt5

__all__ = ["CachedText", "HashedWords", "NullText", "TextEncoder", "Umt5"]
