"""PyTorchVideo networks -> ONNX or TorchScript -> a Triton model repository.

commands      command_line (export), versions_command (versions), exporting (one export from weights to publication)
models        specs (what there is), families/ (how each is built), network, sources (where one comes from), zoo,
              motion/, tuning (rewritten for speed), precision
inputs        weights, labels
files         formats (ONNX, TorchScript), parity (is the file right?), clips (random clips for that)
repository    repository (files on disk), access (who may write them), configs (config.pbtxt), versions
serving       serving/ (options of an operator), capacity (memory, and the limits that follow), target
"""

from clipserve_server import telemetry

telemetry.switch_off()
