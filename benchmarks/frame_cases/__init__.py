"""What `benchmarks.frame` measures: settings of the frame generator go in, results come out."""
