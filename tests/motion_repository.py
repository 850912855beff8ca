"""How tests serve `motion`, the small model, and the videos whose true label they know."""

from pathlib import Path

from tests.exports import FOLDER, Export, main

# Any that are free, so that tests and servers can run side by side.
ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
# Videos of seeds that training never saw; see tests/end_to_end/test_motion_accuracy.py.
UNSEEN_SEED = 7_000_100


def export_motion() -> Path:
    """The repository that holds `motion` as ONNX."""
    main([Export("onnx", "motion")])
    return FOLDER / "onnx"
