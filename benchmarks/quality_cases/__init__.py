"""What `benchmarks.quality` measures: held-out worlds and generators go in, results and pictures come out."""
