"""A repository with `motion` ready to serve: the small model, for tests that need true answers and no other network."""

from pathlib import Path

from clipserve_export.exporting import export_model
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS

# The folder that the fixture `repositories` fills with every model.
FOLDER = Path(__file__).parents[1] / ".cache" / "test-repositories" / "onnx"
# Any that are free, so that tests and servers can run side by side.
ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
# Videos of seeds that training never saw; see tests/end_to_end/test_motion_accuracy.py.
UNSEEN_SEED = 7_000_100


def export_motion() -> Path:
    """The repository; `motion` is exported unless the same code did so before."""
    write_configs(FOLDER)
    export_model(
        SPECS["motion"],
        format_name="onnx",
        weights_source="pretrained",
        labels_file=None,
        repository=FOLDER,
        reuse=True,
    )
    return FOLDER
