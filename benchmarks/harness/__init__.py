"""What all benchmarks share: interleaved rounds, contestant processes, load, the machine, and the results files."""
