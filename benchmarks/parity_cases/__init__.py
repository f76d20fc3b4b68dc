"""Golden data of one kind in, comparisons with our own computation out: one file for each kind of case."""
