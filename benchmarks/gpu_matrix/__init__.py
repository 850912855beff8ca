"""What benchmarks/gpu.py is made of. Needs torch, numpy and PyTorchVideo's sources; nothing else of the environment."""
