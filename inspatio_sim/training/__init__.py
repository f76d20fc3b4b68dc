"""Clips of worlds go in; weights of a student come out: codec, teacher, causal initialisation, distillation."""
