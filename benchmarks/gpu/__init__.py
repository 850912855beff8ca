"""Networks on one GPU, in every way they can run there: `python -m benchmarks.gpu --help`."""
