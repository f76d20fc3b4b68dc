"""Pixels with depth go in; what another camera sees of them comes out (colour, depth, known mask)."""
