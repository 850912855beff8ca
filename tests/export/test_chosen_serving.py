"""A real Triton does what the chosen options say, as far as the embedded one can."""

from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc

from clipserve_export.clips import random_clips
from clipserve_export.exporting import export_network
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.precision import TOLERANCES
from clipserve_export.repository import write_serving
from clipserve_export.serving.choices import Precision, Serving
from clipserve_export.sources import PublishedSource
from clipserve_server.errors import ModelLoadError
from clipserve_server.triton import Triton
from tests.export.conftest import MOTION
from tests.motion_repository import ANY_PORTS, KilledTriton, infer
from tests.watching import stubs


@pytest.mark.long
def test_a_warm_network_has_run_alone_and_in_full_before_anybody_asks(repository: Path) -> None:
    """Through the substitute backend: Triton warms Python-based backends as it does its own."""
    write_serving(repository, MOTION, Serving(warm_up=True, max_batch=4, instances=2))
    with (
        KilledTriton(repository, models=["motion"], **ANY_PORTS) as triton,
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        (statistics,) = client.get_inference_statistics("motion_net").model_stats
        assert (statistics.inference_count, statistics.execution_count) == (2 * (1 + 4), 2 * 2)
        assert len(stubs(triton, "motion_net")) == 2


@pytest.mark.long
def test_tensorrt_changes_nothing_on_a_cpu_but_the_warm_up(repository: Path) -> None:
    write_serving(repository, MOTION, Serving(accelerator="tensorrt", warm_up=True, max_batch=2))
    clip = random_clips(MOTION.geometry, batch=2, views=1, seed=1).numpy()
    expected, _ = FORMATS["onnx"].load(repository / "motion_net" / "1" / "model.onnx")(clip)
    with (
        KilledTriton(repository, models=["motion"], **ANY_PORTS) as triton,
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        scores, _ = infer(client, clip)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(("form", "precision"), [("onnx", "fp16"), ("torchscript", "bf16")])
@pytest.mark.long
def test_a_network_in_half_is_served_and_answers_as_the_one_in_float32(
    onnx_repository: Path, tmp_path: Path, form: FormatName, precision: Precision
) -> None:
    clip = random_clips(MOTION.geometry, batch=3, views=2, seed=1).numpy()
    expected, _ = FORMATS["onnx"].load(onnx_repository / "motion_net" / "1" / "model.onnx")(clip)
    export_network(PublishedSource(MOTION), format_name=form, precision=precision, repository=tmp_path)
    with (
        KilledTriton(tmp_path, models=["motion"], **ANY_PORTS) as triton,
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        scores, _ = infer(client, clip)
    assert 0 < np.abs(scores - expected).max() <= TOLERANCES[precision].scores


@pytest.mark.long
def test_a_bound_on_requests_in_flight_keeps_the_embedded_triton_from_loading_the_model(
    repository: Path, tmp_path: Path
) -> None:
    """2.51 reads no config with a field that it does not know; the help of --max-inflight says so."""
    write_serving(repository, MOTION, Serving(max_inflight=4))
    with pytest.raises(ModelLoadError, match="failed to read text proto"):
        Triton(repository, models=["motion"], log=tmp_path / "triton.log", **ANY_PORTS).start()
