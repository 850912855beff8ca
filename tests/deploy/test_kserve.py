"""The ServingRuntime and the InferenceService of the chart, and its other custom resources."""

import jsonschema
import pytest

from clipserve_container.settings import GRPC_PORT
from tests.conftest import required
from tests.deploy.charts import MATRIX
from tests.deploy.custom_resources import KServeTypes, NoHelm, fit_for_validation, read_definitions
from tests.deploy.helm import RELEASES, is_custom, pick, pods_of, settings_of

KSERVE = [name for name, values in MATRIX.items() if "kserve" in values]


@pytest.fixture(scope="module")
def types():
    """KServe's types."""
    try:
        return KServeTypes()
    except NoHelm as error:
        (pytest.fail if "helm" in required() else pytest.skip)(str(error))


@pytest.mark.parametrize("name", KSERVE)
def test_kserve_knows_every_field(rendered, types, name):
    objects = rendered(name)
    for kind, api in (("ServingRuntime", "V1alpha1"), ("InferenceService", "V1beta1")):
        jsonschema.validate(fit_for_validation(pick(objects, kind)), types.schema(f"{api}{kind}"))


def test_an_unknown_field_would_be_found(rendered, types):
    schema = types.schema("V1beta1InferenceService")
    service = fit_for_validation(pick(rendered("kserve"), "InferenceService"))
    predictor = service["spec"]["predictor"]
    for change in ({"minReplica": 1}, {"model": {**predictor["model"], "runtimes": "x"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**service, "spec": {"predictor": {**predictor, **change}}}, schema)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", KSERVE)
def test_its_pods_are_valid_in_kubernetes(rendered, types, validate, name, release):
    extension = types.fields("V1beta1ComponentExtensionSpec") | {"model"}
    ((_, pod),) = pods_of(rendered(name))
    spec = {key: value for key, value in pod.items() if key not in extension}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec}, release)


@pytest.mark.needs("crds")
def test_custom_resources_are_valid_by_their_definitions(rendered):
    definitions, seen = read_definitions(), set()
    for name in MATRIX:
        for item in filter(is_custom, rendered(name)):
            key = (item["apiVersion"], item["kind"])
            seen.add(key)
            jsonschema.Draft202012Validator(definitions[key]).validate(fit_for_validation(item))
    assert len(seen) == 6


def test_its_pods_have_the_labels_and_annotations_of_the_values(rendered):
    predictor = pick(rendered("kserve"), "InferenceService")["spec"]["predictor"]
    assert predictor["labels"]["team"] == "video"
    assert predictor["labels"]["app.kubernetes.io/name"] == "clipserve"
    assert predictor["annotations"] == {"note": "x"}


def test_the_runtime_serves_what_kserve_mounts_over_grpc(rendered):
    for name in KSERVE:
        objects = rendered(name)
        (container,) = pick(objects, "ServingRuntime")["spec"]["containers"]
        assert container["name"] == "kserve-container"
        assert str(settings_of(container).repository) == "/mnt/models"
        assert container["ports"][0] == {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"}
        model = pick(objects, "InferenceService")["spec"]["predictor"]["model"]
        assert (model["runtime"], model["protocolVersion"]) == ("clipserve", "grpc-v2")
        formats = pick(objects, "ServingRuntime")["spec"]["supportedModelFormats"]
        assert model["modelFormat"] in [{key: one[key] for key in ("name", "version")} for one in formats]


def test_keda_scales_in_standard_mode_and_knative_splits_the_traffic(rendered):
    standard = pick(rendered("kserve"), "InferenceService")
    notes = standard["metadata"]["annotations"]
    assert notes["serving.kserve.io/autoscalerClass"] == "keda"
    assert notes["serving.kserve.io/deploymentMode"] == "Standard"
    (metric,) = standard["spec"]["predictor"]["autoScaling"]["metrics"]
    assert "clipserve_decode_waiting" in metric["external"]["metric"]["query"]
    knative = pick(rendered("kserve_canary"), "InferenceService")
    assert "serving.kserve.io/autoscalerClass" not in knative["metadata"]["annotations"]
    assert knative["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert knative["spec"]["predictor"]["minReplicas"] == 0
    assert {
        port["name"] for port in pick(rendered("kserve_canary"), "ServingRuntime")["spec"]["containers"][0]["ports"]
    } == {"h2c"}
