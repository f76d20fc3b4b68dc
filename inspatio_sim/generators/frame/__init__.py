"""The anchors' render and one remembered view go in as latents; one frame comes out: InSpatio-WorldFM.

`load.load_frame` makes a generator from a preset; `model` is the network, `sampler` runs it, `generator` streams.
"""
