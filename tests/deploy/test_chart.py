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
from tests.deploy.charts import KEYS, MATRIX, TLS
from tests.deploy.helm import (
    CHART,
    NAMESPACE,
    RELEASES,
    ROOT,
    ChartError,
    is_custom,
    pick,
    pods_of,
    run_helm,
    settings_of,
)

MONITORING = ROOT / "deploy" / "monitoring"
COMPOSE = yaml.safe_load(re.sub(r"!reset \w+", "null", (ROOT / "docker-compose.yml").read_text()))


def test_helm_finds_nothing_to_complain_about(helm, tmp_path):
    for name in ("default", "forty", "kserve"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(MATRIX[name]))
        assert "0 chart(s) failed" in run_helm(helm, "lint", "--strict", CHART, "--values", tmp_path / f"{name}.yaml")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MATRIX)
def test_objects_are_valid_in_kubernetes(rendered, validate, name, release):
    for item in rendered(name):
        if not is_custom(item):
            validate(item, release)


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
    ("name", "wanted"),
    [("default", set()), ("azure", {53, 443}), ("minio", {53, 9000}), ("placement", {53, 4318})],
    ids=["none", "store", "own store", "traces"],
)
def test_pods_connect_nowhere_but_where_they_must(rendered, name, wanted):
    egress = pick(rendered(name), "NetworkPolicy")["spec"]["egress"]
    assert {entry["port"] for rule in egress for entry in rule.get("ports", [])} == wanted


def test_pods_with_an_identity_may_ask_their_node_for_it(rendered):
    """GKE's metadata server, that of EC2 and Azure, and the agent of EKS Pod Identity; no other address there."""
    egress = pick(rendered("gcs"), "NetworkPolicy")["spec"]["egress"]
    anywhere = {entry["port"] for rule in egress if "to" not in rule for entry in rule["ports"]}
    assert anywhere == {53, 443}
    nodes = {
        (to["ipBlock"]["cidr"], entry["port"])
        for rule in egress
        for to in rule.get("to", ())
        for entry in rule["ports"]
    }
    assert nodes == {("169.254.169.254/32", 80), ("169.254.170.23/32", 80), ("169.254.169.252/32", 988)}


def test_the_page_is_for_clients_alone_and_calls_only_the_server(rendered):
    policy = pick(rendered("showcase"), "NetworkPolicy", "clipserve-showcase")["spec"]
    labels = pick(rendered("showcase"), "Deployment", "clipserve-showcase")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"port": 7860, "protocol": "TCP"}]}]
    *_, server = policy["egress"]
    assert [entry["port"] for entry in server["ports"]] == [GRPC_PORT]
    servers = pick(rendered("showcase"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert server["to"][0]["podSelector"]["matchLabels"].items() <= servers.items()


def test_images_of_others_do_not_see_the_secrets(render):
    for source in ("objectStore", "initContainer"):
        values = {
            "repository": {"from": source, "objectStore": {"url": "s3://a/b"}, "initContainer": {"image": "models:7"}},
            "tls": TLS,
            "keys": KEYS,
        }
        pod = pick(render(values), "Deployment")["spec"]["template"]["spec"]
        assert "secrets" in {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert {mount["name"] for mount in pod["initContainers"][0]["volumeMounts"]} == {"models", "tmp"}


def test_a_server_that_is_never_to_end_itself_has_no_liveness_probe(render):
    server = server_of(render({"server": {"restartAfter": 0}}))
    assert settings_of(server).restart_after == 0
    assert "livenessProbe" not in server
    assert {"startupProbe", "readinessProbe"} <= server.keys()


# Words that YAML takes for numbers and the like where they are not quoted.
@pytest.mark.parametrize("word", ["123", "1e3", "0x10", "null", "true"])
def test_a_text_stays_a_text(render, validate, word):
    values = {
        "image": {"tag": word, "registry": word, "pullSecrets": [word]},
        "models": [word],
        "tls": {"mode": "mutual", "secret": word, "clientSecret": word},
        "keys": {"adminSecret": word},
        "showcase": {"enabled": True, "model": word},
        "loadtest": {"enabled": True, "options": ["--model", word]},
        "export": {"enabled": True, "models": [word], "options": [word]},
        "repository": {"revision": word, "claim": {"storageClass": word}},
        "placement": {"runtimeClassName": word, "priorityClassName": word, "nodeSelector": {"a": word}},
        "pod": {"labels": {"a": word}, "annotations": {"a": word}},
        "server": {"environment": {"A": word}, "tritonOptions": word},
        "service": {"annotations": {"a": word}},
        "serviceAccount": {"annotations": {"a": word}},
        "monitoring": {"labels": {"a": word}, "datasource": word, "dashboard": True, "alerts": "configMap"},
    }
    front = {"enabled": True, "className": word, "host": word, "tlsSecret": word, "annotations": {"a": word}}
    stores = [
        {"ingress": front, "networkPolicy": {"enabled": False}, "repository": {"claim": {"existing": word}}},
        {"repository": {"from": "objectStore", "objectStore": {"url": "s3://a", "secret": word, "image": word}}},
        {"repository": {"from": "initContainer", "initContainer": {"image": word, "command": [word], "args": [word]}}},
    ]
    for some in (values, *stores):
        for item in render(some):
            validate(item, RELEASES[0])
    ingress = pick(render(stores[0]), "Ingress")["spec"]
    assert (ingress["rules"][0]["host"], ingress["tls"][0]["hosts"]) == (word, [word])
    assert {"name": "A", "value": word} in server_of(render(values))["env"]


def test_large_numbers_stay_whole(render):
    """OpenShift's user ids have ten digits."""
    server = {"traceRate": 5_000_000, "environment": {"LARGE": 20_000_000, "SMALL": 0.5, "NO": False}}
    objects = render({"pod": {"user": 1_000_660_000}, "server": server, "repository": {"revision": 20_261_127}})
    pod = pick(objects, "Deployment")["spec"]["template"]
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        user = pod["spec"]["securityContext"][name]
        assert (user, type(user)) == (1_000_660_000, int)
    environment = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
    assert settings_of(pod["spec"]["containers"][0]).trace_rate == 5_000_000
    assert (environment["LARGE"], environment["SMALL"], environment["NO"]) == ("20000000", "0.5", "false")
    assert pod["metadata"]["annotations"]["clipserve/models"] == "20261127"


def test_a_wildcard_host_is_a_host(render):
    values = {"ingress": {"enabled": True, "host": "*.example.org"}, "networkPolicy": {"enabled": False}}
    assert pick(render(values), "Ingress")["spec"]["rules"][0]["host"] == "*.example.org"


def test_the_commands_of_the_page_set_values_as_they_are_written(helm):
    """--set makes numbers of digits."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    revision = re.search(r"--set repository\.revision=\w+", page)
    assert revision is not None
    assert "clipserve/models" in run_helm(helm, "template", "clipserve", CHART, *revision[0].split())


@pytest.mark.parametrize("name", ["video.prod", "123", "1st"])
def test_a_release_after_which_no_service_can_be_named_is_refused(helm, name):
    with pytest.raises(ChartError, match="the release is called"):
        run_helm(helm, "template", name, CHART)


def test_metrics_that_are_missing_take_no_server_away(rendered):
    for trigger in pick(rendered("keda"), "ScaledObject")["spec"]["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"


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


@pytest.mark.parametrize("name", ["default", "export", "gcs", "tls", "tools", "kserve"])
def test_the_notes_name_what_there_is(helm, rendered, tmp_path, name):
    import typer.main

    (tmp_path / "values.yaml").write_text(yaml.safe_dump(MATRIX[name]))
    options = ("--namespace", NAMESPACE, "--values", tmp_path / "values.yaml")
    notes = run_helm(helm, "install", "--dry-run=client", "clipserve", CHART, *options).partition("NOTES:")[2]
    objects = {(item["kind"].lower(), item["metadata"]["name"]) for item in rendered(name)}
    named = set(re.findall(r"\b(deployment|service|job|inferenceservice)[/ ]([a-z0-9-]+)", notes))
    assert named <= objects
    assert named & {("deployment", "clipserve"), ("inferenceservice", "clipserve")}
    assert {kind for kind, _ in named} >= {kind for kind, _ in objects} & {"job"}
    for command in re.findall(r"clipserve (classify .*)", notes):
        program, *words = shlex.split(command)
        known = {option for one in typer.main.get_command(build_app()).commands[program].params for option in one.opts}
        used = {word for word in words if word.startswith("--")}
        assert "--url" in used <= known
        assert ("--root-certificates" in used, "--header" in used) == (name in ("tls", "tools"), name == "tls")


def test_what_waits_for_the_export_takes_no_gpu(rendered):
    (wait,) = pick(rendered("export"), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert wait["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    # The check of a container without a GPU asks for memory as if networks ran on the CPU.
    assert "clipserve_container" not in str(wait["command"])
    assert "nvidia.com/gpu" not in wait["resources"]["limits"]
    assert settings_of(server_of(rendered("export"))).gpu == "required"


def job_of(objects):
    (job,) = (item for item in objects if item["kind"] == "Job")
    return job


def test_servers_wait_for_the_very_export_that_their_release_has(render):
    def waits_and_makes(**more):
        objects = render({"export": {"enabled": True, "models": ["motion"]}, **more})
        pod = pick(objects, "Deployment")["spec"]["template"]["spec"]
        done = re.compile(r"/models/\.exported-\w+")
        (waits,) = done.findall(pod["initContainers"][0]["command"][-1])
        (makes,) = done.findall(" ".join(job_of(objects)["spec"]["template"]["spec"]["containers"][0]["command"]))
        assert waits == makes
        return waits

    assert waits_and_makes() == waits_and_makes()
    assert waits_and_makes(repository={"revision": 2}) != waits_and_makes()
    # What does not change the models starts no server anew.
    assert waits_and_makes(resources={"tools": {"cpu": 2}}) == waits_and_makes()


@pytest.mark.parametrize("name", ["export", "tools"])
def test_a_job_that_is_done_stays_and_a_changed_one_has_another_name(render, name):
    """Kubernetes refuses another pod for a Job, and Helm makes again what was removed."""
    before = job_of(render(MATRIX[name]))
    assert "ttlSecondsAfterFinished" not in before["spec"]
    for more in ({"pod": {"user": 2000}}, {"image": {"pullPolicy": "Always"}}, {"resources": {"tools": {"cpu": 1}}}):
        after = job_of(render({**MATRIX[name], **more}))
        assert after["spec"]["template"] != before["spec"]["template"]
        assert after["metadata"]["name"] != before["metadata"]["name"]


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
