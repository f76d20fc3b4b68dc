"""A family of models and a config go in; trained weights come out, with metrics, samples and checkpoints on the way.

It knows no model: `family.py` says what it asks of one.
"""
