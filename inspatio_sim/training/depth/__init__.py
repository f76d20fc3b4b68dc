"""Pictures with true depth, a part of it hidden, go in; weights of the depth network come out."""
