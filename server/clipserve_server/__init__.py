"""A real Triton on this machine, started from a wheel."""

from clipserve_server import telemetry

telemetry.switch_off()
