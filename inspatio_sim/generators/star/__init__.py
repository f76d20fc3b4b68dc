"""Renders, masks and the reference go in as latents; a block of frames comes out: the InSpatio-World student.

`load.load_star` makes a generator from a preset; `model` is the network, `sampler` runs it, `generator` streams.
"""
