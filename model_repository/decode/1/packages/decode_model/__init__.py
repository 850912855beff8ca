"""Triton's side of the decode step: the config, requests and responses, metrics."""
