"""The official files of the benchmarks: what there is, where it lies, and bringing it there."""
