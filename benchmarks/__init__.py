"""The benchmarks of clipserve. Run one from the repository root: `python -m benchmarks.decode --help`."""
