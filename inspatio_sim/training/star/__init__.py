"""Encoded clips go in; weights of the video student and its teachers come out.

`build.py` has the family; codec and depth network are stages of the same runs.
"""
