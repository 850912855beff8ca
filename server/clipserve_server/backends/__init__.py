"""Python backends that substitute Triton's C++ backends, which the wheel does not have.

Triton starts a process for each instance. A process loads one of onnxruntime_backend and libtorch_backend, and imports
torch only where it needs it, because that costs a process seconds and 200 MiB.
"""
