"""The whole service on a GPU, and its parts: `python -m benchmarks.gpu_service --help`."""
