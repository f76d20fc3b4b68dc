"""What `benchmarks.star` measures: settings of the video student go in, results come out."""
