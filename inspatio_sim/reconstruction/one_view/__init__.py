"""Frames go in one at a time; depth comes out: from a layout prior, or from a depth network."""
