"""perf_analyzer against a clipserve server, with real videos: what `python benchmarks/load` runs."""
