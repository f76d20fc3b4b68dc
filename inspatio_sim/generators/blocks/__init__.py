"""What the networks of star and frame share: attention, modulation, kernels and packed products, loading, counting.

Latents, pictures and settings go in and come out; no generator is known here.
"""
