"""Clips of worlds go in; weights of the video student, its codec, the depth network and the frame generator come out.

`stages.py` lists what can be trained; `engine/` trains any of it; the other rooms say what, and on which data.
"""
