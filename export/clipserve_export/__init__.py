"""PyTorchVideo networks -> ONNX or TorchScript -> a Triton model repository.

commands      command_line (export), adopt_command, models_command, versions_command, exporting (one export from weights
              to publication)
models        specs (what there is), families/ (how each is built), network, sources (where one comes from),
              named_sources (which one an argument names), own/ (users' networks), zoo, motion/, tuning (rewritten for
              speed), precision
inputs        weights, labels, damaged_files
files         formats (ONNX, TorchScript), parity (is the file right?), clips (random clips for that)
repository    repository (files on disk), access (who may write them), configs (config.pbtxt), publication (a version
              comes into it), moves (several files change together), records (what exports wrote down), versions
serving       serving/ (options of an operator), capacity (memory, and the limits that follow), target
"""

from clipserve_server import telemetry

telemetry.switch_off()
