"""Procedural scenes with exact geometry: solids, lights and camera poses enter; frames, depth and ids leave.

They are the demo clip, the ground truth of the benchmarks and training data without a licence.
"""
