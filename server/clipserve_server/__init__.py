"""A real Triton on this machine, started from a wheel."""
