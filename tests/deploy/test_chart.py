"""The objects that the Helm chart makes, over a matrix of values: valid, confined, and in agreement with each other."""

import json
import os
import re
import shlex
import tarfile

import pytest
import yaml

from clipserve.command_line import build_app
from clipserve_container.memory import shared_memory_needed
from clipserve_container.settings import GRPC_PORT, METRICS_PORT, READY_PORT, Settings
from tests.deploy.charts import MATRIX
from tests.deploy.helm import CHART, NAMESPACE, ROOT, pick, pods_of, run_helm

RELEASES = ("1.33", "1.35", "1.37")
MONITORING = ROOT / "deploy" / "monitoring"
COMPOSE = yaml.safe_load(re.sub(r"!reset \w+", "null", (ROOT / "docker-compose.yml").read_text()))
# API groups that a cluster has by an operator.
CUSTOM = ("serving.kserve.io", "monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh")


def is_custom(item):
    return item["apiVersion"].startswith(CUSTOM)


def test_helm_finds_nothing_to_complain_about(helm, tmp_path):
    for name in ("default", "forty", "kserve"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(MATRIX[name]))
        assert "0 chart(s) failed" in run_helm(helm, "lint", "--strict", CHART, "--values", tmp_path / f"{name}.yaml")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MATRIX)
def test_objects_are_valid_in_kubernetes(rendered, name, release):
    import kubernetes_validate

    for item in rendered(name):
        if not is_custom(item):
            kubernetes_validate.validate(item, release, strict=True)


@pytest.mark.parametrize("name", MATRIX)
def test_an_object_is_in_the_namespace_and_says_what_it_belongs_to(rendered, name):
    seen = set()
    for item in rendered(name):
        assert item["metadata"]["namespace"] == NAMESPACE
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "clipserve"
        assert len(item["metadata"]["name"]) <= 63
        key = (item["kind"], item["metadata"]["name"])
        assert key not in seen
        seen.add(key)


@pytest.mark.parametrize("name", MATRIX)
def test_pods_are_confined(rendered, name):
    for where, pod in pods_of(rendered(name)):
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where
        assert not pod.get("hostNetwork")
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert all(
            {"emptyDir", "persistentVolumeClaim", "secret", "projected"} & volume.keys() for volume in volumes.values()
        )
        assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values() if "emptyDir" in volume)
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert security["runAsNonRoot"] is True, where
            assert security["runAsUser"] >= 1000
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert {"cpu", "memory"} <= limits.keys() & requests.keys(), where
            # Models are mounted by KServe itself.
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys(), where
            assert not any(value.get("valueFrom") for value in container.get("env", []))


@pytest.mark.parametrize("name", MATRIX)
def test_a_server_is_asked_for_its_models_and_has_time_to_end(rendered, name):
    for where, pod in pods_of(rendered(name)):
        (container,) = pod["containers"]
        if container["name"] not in ("server", "kserve-container"):
            continue
        probes = [
            container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in container
        ]
        for probe in probes:
            asked = probe.get("httpGet", {"path": "/ready", "port": "ready"})
            assert asked == {"path": "/ready", "port": "ready"}, where
        if name == "kserve_canary":  # Knative ends pods its own way
            assert probes == [probes[0]]
            continue
        assert len(probes) == 3
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        grpc = ports.pop("grpc", None) or ports.pop("h2c")
        assert (grpc, ports) == (GRPC_PORT, {"metrics": METRICS_PORT, "ready": READY_PORT})
        settings = settings_of(container)
        hook = container["lifecycle"]["preStop"]["sleep"]["seconds"] if "lifecycle" in container else 0
        assert bool(hook) == (name != "placement")
        assert pod["terminationGracePeriodSeconds"] == hook + settings.exit_seconds
        # A rolling update that loses nothing: every connection is older than it may be before the server refuses.
        (age,) = (int(option.split("=")[1]) for option in settings.triton_options if "connection-age=" in option)
        assert settings.drain_seconds > 1.1 * age / 1000


def settings_of(container):
    """The server's own reading of its environment."""
    return Settings.from_environment({one["name"]: one["value"] for one in container["env"]})


def server_of(objects):
    """The server's container."""
    return pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_the_server_gets_the_variables_that_compose_gives_it(rendered):
    names = {one["name"] for one in server_of(rendered("default"))["env"]}
    assert names == {*COMPOSE["x-triton"]["environment"], "CLIPSERVE_REPOSITORY"}
    settings = settings_of(server_of(rendered("default")))
    assert (settings.gpu, settings.decoder, settings.tls, settings.models) == ("required", "auto", "off", ())
    assert settings_of(server_of(rendered("cpu"))).gpu == "none"
    assert settings_of(server_of(rendered("forty"))).models == ("x3d_m", "mvit_base_32x3")


@pytest.mark.parametrize(("views", "gpus"), [(1, 0), (1, 1), (10, 2)])
def test_shared_memory_is_what_the_server_asks_for(render, every_model, monkeypatch, views, gpus):
    objects = render(
        {
            "sharedMemory": {"views": views, "videoMegabytes": 20},
            "resources": {"cpu": 16, "memory": "64Gi", "gpus": gpus},
        }
    )
    (volume,) = (
        volume
        for volume in pick(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "shared-memory"
    )
    assert volume["emptyDir"]["medium"] == "Memory"
    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Mi"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    settings = Settings(repository=every_model, views=views, video_megabytes=20)
    needed = shared_memory_needed(settings, gpus=gpus) / 2**20
    # Rounded up to whole MiB for the largest clip alone.
    assert needed <= size <= needed + (80 + 18 * gpus) * views * 0.2 + 1


def test_services_budget_and_policy_choose_the_servers_and_only_them(rendered):
    objects = rendered("tools")
    labels = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] in ("Deployment", "Job")
    }
    selectors = [pick(objects, "Service", name)["spec"]["selector"] for name in ("clipserve", "clipserve-headless")]
    selectors.append(pick(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    selectors.append(pick(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        chosen = [name for name, own in labels.items() if selector.items() <= own.items()]
        assert chosen == ["clipserve"]
    assert pick(objects, "Service", "clipserve-headless")["spec"]["clusterIP"] == "None"


def test_a_pod_with_shared_volumes_may_be_updated_while_the_old_ones_serve(rendered):
    spec = pick(rendered("default"), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] is True


def test_new_models_start_the_servers_anew(render):
    def template(revision):
        return pick(render({"repository": {"revision": revision}}), "Deployment")["spec"]["template"]

    assert template("1") == template("1")
    assert template("1") != template("2")


def test_with_an_autoscaler_the_deployment_names_no_number(rendered):
    for name, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        objects = rendered(name)
        assert "replicas" not in pick(objects, "Deployment")["spec"]
        target = pick(objects, kind)["spec"]["scaleTargetRef"]
        assert target["name"] == "clipserve"
        metrics = {"clipserve_decode_waiting", "nv_inference_pending_request_count"}
        assert metrics == {word for word in re.findall(r"\w+", json.dumps(objects)) if word in metrics}
    assert pick(rendered("default"), "Deployment")["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("name", "port"), [("default", None), ("gcs", 443), ("placement", 4318)], ids=["none", "store", "traces"]
)
def test_pods_connect_nowhere_but_where_they_must(rendered, name, port):
    egress = pick(rendered(name), "NetworkPolicy")["spec"]["egress"]
    ports = {entry["port"] for rule in egress for entry in rule.get("ports", [])}
    assert ports == ({53, port} if port else set())


def test_only_calls_of_clients_pass_a_route(rendered):
    (rule,) = pick(rendered("gateway"), "GRPCRoute")["spec"]["rules"]
    calls = {match["method"]["method"] for match in rule["matches"]}
    assert {match["method"]["type"] for match in rule["matches"]} == {"Exact"}
    paths = pick(rendered("ingress"), "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert {path["path"].rsplit("/")[-1] for path in paths} == calls
    assert {path["pathType"] for path in paths} == {"Exact"}
    assert {"ModelInfer", "ModelReady"} <= calls
    assert not any(re.match("Repository|Trace|Log|System|Cuda|ModelStatistics", call) for call in calls)
    assert len(rule["matches"]) <= 8  # what Gateway API 1.0 allows


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("forty", ':s3,env_auth="true",provider="AWS",region="eu-central-1":models/clipserve'),
        ("gcs", ':gcs,env_auth="true":models/clipserve'),
        ("azure", ':azureblob,env_auth="true":models/clipserve'),
    ],
)
def test_models_are_copied_from_the_store(rendered, name, remote):
    (copy,) = pick(rendered(name), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert copy["args"][:3] == ["copy", remote, "/models"]


def test_the_jobs_and_the_page_run_commands_that_exist(rendered):
    import typer.main

    commands = typer.main.get_command(build_app()).commands
    export = next(item for item in rendered("export") if item["kind"] == "Job")
    words = {"export": export["spec"]["template"]["spec"]["containers"][0]["args"]}
    tools = rendered("tools")
    test = next(item for item in tools if item["kind"] == "Job")
    container = test["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][0] == "loadtest"
    words["loadtest"] = container["args"][1:]
    (line,) = pick(tools, "Deployment", "clipserve-showcase")["spec"]["template"]["spec"]["containers"][0]["args"]
    program = shlex.split(line)
    assert program[:3] == ["exec", "clipserve", "demo"]
    words["demo"] = program[3:]
    for name, arguments in words.items():
        commands[name].make_context(name, list(arguments))


def test_what_waits_for_the_export_takes_no_gpu(rendered):
    (wait,) = pick(rendered("export"), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert settings_of(wait).gpu == "none"
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in wait["env"]
    assert "nvidia.com/gpu" not in wait["resources"]["limits"]
    assert settings_of(server_of(rendered("export"))).gpu == "required"


def test_another_export_is_another_job(render):
    def name(*models):
        values = {"export": {"enabled": True, "models": list(models)}}
        return next(item["metadata"]["name"] for item in render(values) if item["kind"] == "Job")

    assert name("motion") == name("motion")
    assert name("motion") != name("motion", "x3d_m")


def test_alerts_and_dashboard_are_the_files_that_compose_uses(rendered):
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    assert pick(rendered("operator"), "PrometheusRule")["spec"] == alerts
    data = pick(rendered("config_maps"), "ConfigMap", "clipserve-alerts")["data"]
    assert yaml.safe_load(data["alerts.yml"]) == alerts
    dashboard = json.loads((MONITORING / "grafana" / "clipserve.json").read_text())
    data = pick(rendered("config_maps"), "ConfigMap", "clipserve-dashboard")["data"]
    assert json.loads(data["clipserve.json"]) == dashboard
    # Its panels ask the data source that was named.
    text = pick(rendered("operator"), "ConfigMap", "clipserve-dashboard")["data"]["clipserve.json"]
    uids = set(re.findall(r'"type": "prometheus",\s*"uid": "(\w+)"', text))
    assert uids == {"prometheus"}
    assert json.loads(text)["uid"] == dashboard["uid"]


def test_the_monitor_uses_the_names_that_the_alerts_ask_for(rendered):
    endpoints = pick(rendered("operator"), "PodMonitor")["spec"]["podMetricsEndpoints"]
    jobs = {endpoint["port"]: endpoint["relabelings"][0]["replacement"] for endpoint in endpoints}
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in scraped if "dns_sd_configs" in job}
    assert {port: ports[job] for port, job in jobs.items()} == {"metrics": METRICS_PORT, "ready": READY_PORT}


def test_a_package_of_the_chart_has_the_monitoring_files(helm, tmp_path):
    run_helm(helm, "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        alerts = archive.extractfile("clipserve/monitoring/alerts.yml")
        assert alerts is not None
        assert alerts.read() == (MONITORING / "alerts.yml").read_bytes()


def test_another_version_of_the_chart_restarts_no_pod(rendered):
    for item in rendered("tools"):
        if item["kind"] in ("Deployment", "Job"):
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert not labels.keys() & {"helm.sh/chart", "app.kubernetes.io/version"}


def test_the_scaler_asks_for_its_own_pods_only(rendered):
    for name, kind, pod in (
        ("keda", "ScaledObject", "clipserve-7d9f8b6c5-x2x9q"),
        ("kserve", "InferenceService", "clipserve-predictor-7d9f8b6c5-x2x9q"),
    ):
        text = json.dumps(pick(rendered(name), kind)["spec"]).replace('\\"', '"')
        (asked,) = set(re.findall(r'pod=~"([^"]+)"', text))
        assert re.fullmatch(asked, pod)
        assert not re.fullmatch(asked, pod.replace("clipserve-", "clipserve-second-"))
