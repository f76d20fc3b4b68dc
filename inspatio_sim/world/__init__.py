"""A source (clip, generator, settings) becomes a world; actions go in, observations come out, the map grows.

`loop` has the steps in the data's order, `source` is the one door to a world.
"""
