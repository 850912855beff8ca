"""Values that the chart refuses: each alone by its schema, and those that contradict each other by a sentence."""

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.charts import STORE, TLS
from tests.deploy.helm import CHART, ROOT, ChartError

README = CHART / "README.md"
KSERVE = {"enabled": True, "storageUri": "s3://models"}
SHOWCASE = {"enabled": True, "model": "motion"}
GATEWAY = {"enabled": True, "parentRefs": [{"name": "public"}]}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"replica": 3}, "replica"),
        ({"resources": {"cpus": 8}}, "cpus"),
        ({"resources": {"memory": "16GB"}}, "/resources/memory"),
        ({"resources": {"gpus": "all"}}, "/resources/gpus"),
        ({"replicas": -1}, "/replicas"),
        ({"repository": {"from": "bucket"}}, "/repository/from"),
        ({"repository": {"objectStore": {"url": "http://models"}}}, "/repository/objectStore/url"),
        ({"models": "x3d_m"}, "/models"),
        ({"models": ["x3d_m; rm"]}, "/models/0"),
        ({"server": {"decoder": "gpu"}}, "/server/decoder"),
        ({"tls": {"mode": True}}, "/tls/mode"),
        ({"autoscaling": {"kind": "vpa"}}, "/autoscaling/kind"),
        ({"drain": {"seconds": "long"}}, "/drain/seconds"),
        ({"networkPolicy": {"clients": {"podSelector": {}}}}, "/networkPolicy/clients"),
        ({"kserve": {"deploymentMode": "Serverless"}}, "/kserve/deploymentMode"),
        ({"disruptionBudget": {"maxUnavailable": 0}}, "/disruptionBudget/maxUnavailable"),
        ({"image": {"registry": "https://registry.example.org"}}, "/image/registry"),
        ({"image": {"pullSecrets": ["the secret"]}}, "/image/pullSecrets/0"),
        ({"rollout": {"maxUnavailable": "200%"}}, "/rollout/maxUnavailable"),
        ({"repository": {"objectStore": {"url": "s3:///models"}}}, "/repository/objectStore/url"),
        ({"repository": {"initContainer": {"image": "models 7"}}}, "/repository/initContainer/image"),
        ({"gateway": {"hostnames": ["https://clips.example.org"]}}, "/gateway/hostnames/0"),
        ({"ingress": {"host": "*example.org"}}, "/ingress/host"),
        ({"pod": {"user": 2**31}}, "/pod/user"),
        ({"server": {"environment": {"A=B": "c"}}}, "'A=B'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_its_name(render, values, name):
    with pytest.raises(ChartError, match=re.escape(name)):
        render(values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"drain": {"exitSeconds": 45}}, "raise drain.exitSeconds to 46"),
        ({"connections": {"ageSeconds": 60}}, "raise drain.seconds to 67"),
        ({"rollout": {"maxSurge": 0}}, "no server could ever be replaced"),
        ({"rollout": {"maxSurge": "0%", "maxUnavailable": "0%"}}, "no server could ever be replaced"),
        ({"server": {"environment": {"CLIPSERVE_EXIT_SECONDS": 30}}}, "server.environment has CLIPSERVE_EXIT_SECONDS"),
        ({"server": {"tritonOptions": "--grpc-max-connection-age=1"}}, "use connections.ageSeconds"),
        ({"pod": {"labels": {"app.kubernetes.io/name": "x"}}}, "pod.labels has app.kubernetes.io/name"),
        ({"monitoring": {"labels": {"app.kubernetes.io/name": "x"}}}, "monitoring.labels has app.kubernetes.io/name"),
        ({"pod": {"annotations": {"clipserve/models": "x"}}}, "use repository.revision"),
        ({"replicas": 40, "autoscaling": {"kind": "hpa"}}, "replicas is 40, but autoscaling.kind is hpa"),
        ({"autoscaling": {"kind": "hpa", "decodeWaiting": 64}}, "autoscaling.decodeWaiting is 64"),
        ({"gateway": {"enabled": True, "parentRefs": [{"name": "a", "namespace": "b"}]}}, "networkPolicy.clients"),
        ({"ingress": {"enabled": True, "host": "a.b"}}, "networkPolicy.clients"),
        ({"service": {"type": "LoadBalancer"}}, "service.type is LoadBalancer, but networkPolicy.clients"),
        ({"showcase": SHOWCASE, "models": ["x3d_m"]}, "showcase.model is motion, but models has x3d_m"),
        (
            {"kserve": {**KSERVE, "deploymentMode": "Knative"}, "monitoring": {"podMonitor": True}},
            "monitoring.podMonitor asks for ports",
        ),
        ({"kserve": {**KSERVE, "deploymentMode": "Knative"}, "tls": TLS}, "its proxy speaks plain gRPC"),
        ({"sharedMemory": {"size": "512Mi"}}, "1864 Mi may be in use at once"),
        ({"sharedMemory": {"views": 40}}, "raise it to 46032 Mi or more"),
        ({"resources": {"memory": "2Gi"}}, "/dev/shm counts in it with 1864 Mi"),
        ({"resources": {"gpus": 0}, "server": {"decoder": "nvdec"}}, "resources.gpus is 0"),
        ({"repository": {"from": "objectStore"}}, "repository.objectStore.url is empty"),
        ({"repository": {"from": "initContainer"}}, "repository.initContainer.image is empty"),
        ({"replicas": 2, "repository": {"claim": {"accessMode": "ReadWriteOnce"}}}, "which one node can mount"),
        ({"export": {"enabled": True}}, "export.models is empty"),
        ({"export": {"enabled": True, "models": ["motion"]}, "repository": STORE}, "do not read their models from it"),
        ({"export": {"enabled": True, "models": ["motion"]}, "models": ["x3d_m"]}, "models has x3d_m"),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 11}}, "more than autoscaling.maxReplicas"),
        ({"autoscaling": {"kind": "keda"}}, "autoscaling.prometheus is empty"),
        ({"tls": {"mode": "server"}}, "a Secret with tls.crt and tls.key"),
        ({"tls": {"mode": "mutual"}}, "and ca.crt"),
        ({"tls": TLS, "gateway": GATEWAY}, "gateway.enabled with tls.mode mutual: it ends TLS itself"),
        ({"tls": TLS, "ingress": {"enabled": True, "host": "a.b"}}, "ingress.enabled with tls.mode mutual: it"),
        ({"gateway": {"enabled": True}}, "gateway.parentRefs is empty"),
        ({"ingress": {"enabled": True}}, "ingress.host is empty"),
        ({"showcase": {"enabled": True}}, "showcase.model"),
        ({"loadtest": {"enabled": True}}, "needs keys.adminSecret"),
        ({"showcase": SHOWCASE, "tls": {"mode": "server", "secret": "s"}}, "tls.clientSecret"),
        ({"showcase": SHOWCASE, "keys": {"apiSecret": "k"}}, "sends no api_key"),
        ({"kserve": {"enabled": True}}, "kserve.storageUri is empty"),
        ({"kserve": KSERVE, "autoscaling": {"kind": "hpa"}}, "KServe makes the autoscaler"),
        ({"kserve": KSERVE, "gateway": GATEWAY}, "KServe makes the routes itself"),
        ({"kserve": KSERVE, "showcase": SHOWCASE}, "no Service clipserve"),
        ({"kserve": {**KSERVE, "canaryTrafficPercent": 10}}, "needs kserve.deploymentMode Knative"),
        (
            {"kserve": {**KSERVE, "deploymentMode": "Knative"}, "autoscaling": {"kind": "keda", "prometheus": "http://p"}},
            "its own autoscaler decides",
        ),
        ({"kserve": KSERVE, "export": {"enabled": True, "models": ["motion"]}}, "do not read their models from it"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused_with_a_sentence(render, values, says):
    with pytest.raises(ChartError, match=re.escape(says)):
        render(values)


def leaves(values, schema, path=()):
    """Every value without an object of named values inside, with its part of the schema."""
    for key, value in values.items():
        assert key in schema["properties"], f"the schema lacks {'.'.join([*path, key])}"
        part = schema["properties"][key]
        if "properties" in part:
            yield from leaves(value, part, (*path, key))
        else:
            yield ".".join([*path, key])


def test_the_schema_has_every_value_and_no_other():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    def names(part, path=()):
        if "properties" not in part:
            return {".".join(path)}
        assert part["additionalProperties"] is False
        return set().union(*(names(inner, (*path, key)) for key, inner in part["properties"].items()))

    # Helm itself adds `global`.
    assert set(leaves(values, schema)) == names(schema) - {"global"}


def test_the_table_of_the_readme_has_every_value_with_its_default():
    import runpy
    import sys
    from unittest.mock import patch

    program = ROOT / "deploy" / "helm" / "make_readme.py"
    with patch.object(sys, "argv", [str(program), "--check"]):
        assert runpy.run_path(str(program))["main"]() == 0, "run: python deploy/helm/make_readme.py"
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| (.+) \|$", README.read_text(), re.MULTILINE)
    tools = {"resources.tools.cpu", "resources.tools.memory"}
    assert {path for path, _, _ in rows} == set(leaves(values, schema)) - tools | {"resources.tools"}
    assert all(len(meaning) > 5 for _, _, meaning in rows)


def test_the_names_of_values_in_the_page_exist():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    roots = "|".join(values)
    named = set(re.findall(rf"`((?:{roots})(?:\.\w+)+)(?::[^`]*)?`", page))
    assert len(named) > 20

    def exists(path: str) -> bool:
        part = values
        for key in path.split("."):
            if not isinstance(part, dict) or key not in part:
                return False
            part = part[key]
        return True

    assert [path for path in sorted(named) if not exists(path)] == []


def test_the_chart_has_the_version_of_the_package():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert Path(CHART / "values-cpu.yaml").exists()
