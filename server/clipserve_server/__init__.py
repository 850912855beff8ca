"""The embedded server: a real Triton on this machine, from a wheel.

command_line     clipserve serve
triton           the server: start, wait until ready, stop; options (what it can be told); startup (the wait); ports
guard            the process that runs Triton and ends it
wheel            the parts of the wheel; python_stubs (the Python of Triton's Python models)
backends/        Python backends that substitute Triton's C++ backends
repository       which models there are; shared_memory (how much they need)
gpu              the GPUs, and what uses them
packages         the versions of installed packages; telemetry (is switched off in them)
log, errors      what Triton says, and why it does not start
"""

from clipserve_server import telemetry

telemetry.switch_off()
