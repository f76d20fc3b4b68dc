"""A source (clip, generator, settings) becomes a world; actions go in, observations come out, the map grows.

`loop` runs the steps in the data's order; every world is made from a `source`.
"""
