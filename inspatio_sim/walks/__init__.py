"""A world and a list of motions go in; videos, map, path and a report come out."""
