"""Crops of clips and photographs go in; weights of the narrow codec come out."""
