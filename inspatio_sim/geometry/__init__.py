"""Pixels with depth go in; another camera's view of them comes out (colour, depth, known mask)."""
