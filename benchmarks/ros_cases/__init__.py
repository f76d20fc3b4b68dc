"""The two ends that `benchmarks.ros` measures between: a node in its own process, and what subscribes to it."""
