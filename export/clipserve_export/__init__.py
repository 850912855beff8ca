"""PyTorchVideo networks -> ONNX / TorchScript -> a Triton model repository."""
