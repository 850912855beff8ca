"""PyTorchVideo networks -> ONNX / TorchScript -> a Triton model repository."""

from clipserve_server import telemetry

telemetry.switch_off()
