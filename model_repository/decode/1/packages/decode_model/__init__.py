"""Triton's side of the decode step.

request.py      a request: its videos go to the pool, one response comes back
config.py       the parameters of the config
metrics.py      what Prometheus reads, and what the step reads of Triton's own metrics
triton.py       parameters, errors and stored responses, as timeline_model needs them, too
in_flight.py    tells whoever stops the server whether requests are in flight
"""
