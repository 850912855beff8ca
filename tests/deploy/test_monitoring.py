"""Every query of the dashboard and of the alerts, asked of a real Prometheus that scraped a loaded server."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from clipserve import ClipserveError, VideoClassifier
from tests.deploy.running_service import RunningService
from tests.ports import find_free_ports
from tests.watching import HANG_SECONDS, wait_for
from timeline_model.config import TimelineSettings

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana" / "clipserve.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# query, a comparison, a number: the query alone must return data whether or not it is time to worry.
COMPARISON = re.compile(r"\s(?:<|>)\s[\d.e+]+$")

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package prometheus")


@pytest.fixture(scope="module")
def ask(onnx_repository, bouncing, tmp_path_factory):
    """Ask the Prometheus that scraped a service while it was used; returns the values."""
    folder = tmp_path_factory.mktemp("prometheus")
    service = RunningService(onnx_repository, tmp_path_factory.mktemp("service"))
    (port,) = find_free_ports(1)
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    targets = {"triton": service.server.ports["metrics"], "readiness": service.ready_port, "prometheus": port}
    config["scrape_configs"] = [
        # What compose's DNS finds is on loopback here; names, rules and the rest are the real file's.
        {"job_name": job["job_name"], "static_configs": [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITORING / "alerts.yml", folder)
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        prometheus = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )

    def query(expression: str) -> list[float]:
        address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(address, timeout=HANG_SECONDS) as answer:
            return [float(result["value"][1]) for result in json.load(answer)["data"]["result"]]

    try:
        service.wait_until_ready()
        end = time.monotonic() + 2 * HANG_SECONDS

        def scraped() -> bool:
            try:
                return bool(query('count_over_time(nv_inference_request_success{model="motion"}[8s]) >= 5'))
            except OSError:  # Prometheus does not listen yet
                return False

        with VideoClassifier("motion", service.server.grpc_url) as classifier:
            while not scraped():
                assert time.monotonic() < end, "Prometheus did not scrape the service"
                classifier.classify(bouncing)
                list(classifier.timeline(bouncing))
                with pytest.raises(ClipserveError):
                    classifier.classify(b"no video")
                time.sleep(0.05)
        yield query
    finally:
        for process in (prometheus, service.process):
            process.terminate()
            process.wait(HANG_SECONDS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_something_or_says_that_it_needs_a_gpu(ask, panel):
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "10s")
        needs_gpu = panel["description"].startswith("GPU only")
        assert needs_gpu or wait_for(lambda query=query: ask(query)), query
        values = ask(query)
        assert bool(values) != needs_gpu, query
        assert all(value >= 0 for value in values), "not a number, or below zero"


# The fixture sent videos and what is none, and timelines that all ended well; every other outcome is counted as 0.
@pytest.mark.parametrize(("name", "outcomes"), [("decode", 2), ("timeline", 1)])
def test_a_panel_of_outcomes_leaves_out_those_that_never_came(ask, name, outcomes):
    expressions = (target["expr"] for panel in PANELS for target in panel["targets"])
    (expression,) = (text for text in expressions if f"rate(clipserve_{name}_total[" in text)
    assert len(ask(f"sum by (outcome) (clipserve_{name}_total)")) > 2
    assert len(ask(expression.replace("$__rate_interval", "10s"))) == outcomes


def test_what_is_asked_of_requests_leaves_timelines_out(ask):
    """A timeline takes minutes, and Triton counts each acknowledgement of windows as a request."""
    assert ask('nv_inference_request_success{model="timeline"}')[0] > 0
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in ALERTS]
    selectors = {selector for query in queries for selector in re.findall(r'model!~"[^"]*"', query)}
    assert selectors == {'model!~".*_net|decode|timeline"'}
    (selector,) = selectors
    assert len(ask(f"nv_inference_request_success{{{selector}}}")) == 1


def test_the_limit_of_timelines_is_that_of_the_config(ask):
    assert ask("clipserve_timeline_limit") == [TimelineSettings.max_timelines]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_data_to_judge_or_says_that_it_needs_a_gpu(ask, alert):
    # Rates over five minutes are not to be had from six seconds.
    expression = alert["expr"].strip().replace("[5m]", "[4s]")
    query = COMPARISON.sub("", expression)
    assert query != expression
    needs_gpu = alert["labels"].get("needs") == "gpu"
    # On a busy machine Prometheus may be late: then the last seconds have too few values for a rate.
    assert not ask(query) if needs_gpu else wait_for(lambda: ask(query))
    assert ask(expression) == [], "a service that is well raises this alert"


def test_alerts_fire_when_they_should(tmp_path):
    labels = 'instance="a:8002"'
    tests = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": f'up{{job="triton",{labels}}}', "values": "1 0x40"},
                    {"series": f'clipserve_model_ready{{model="decode",{labels}}}', "values": "1 0x40"},
                    {"series": f"clipserve_decode_waiting{{{labels}}}", "values": "60x20"},
                    # Two weeks after the seventh minute.
                    {"series": f"clipserve_certificate_expiry_timestamp_seconds{{{labels}}}", "values": "1210019x60"},
                    {"series": f"clipserve_decode_worker_restarts_total{{{labels}}}", "values": "0+1x20"},
                    {"series": f"clipserve_timeline_limit{{{labels}}}", "values": "4x80"},
                    {"series": f"clipserve_timeline_running{{{labels}}}", "values": "3 4x79"},
                    {"series": f"clipserve_timeline_worker_restarts_total{{{labels}}}", "values": "0+1x20"},
                    {"series": 'nv_inference_request_success{model="motion"}', "values": "0+90x60"},
                    # Not of single videos: neither slow nor among those of which a share fails.
                    {"series": 'nv_inference_request_success{model="timeline"}', "values": "0+900x60"},
                    {
                        "series": 'nv_inference_request_summary_us{model="timeline",quantile="0.99"}',
                        "values": "9e8x60",
                    },
                    {"series": 'nv_inference_request_failure{model="motion_net",reason="OTHER"}', "values": "0+5x60"},
                    {"series": 'clipserve_decode_total{outcome="crashed"}', "values": "0+5x60"},
                ],
                "alert_rule_test": [
                    {"eval_time": time_, "alertname": name, "exp_alerts": [{"exp_labels": given} for given in labels_]}
                    for name, time_, *labels_ in (
                        ("TritonDown", "5m"),
                        ("ModelDead", "5m"),
                        ("TritonDown", "6m", {"severity": "critical", "instance": "a:8002"}),
                        ("ModelDead", "6m", {"severity": "critical", "instance": "a:8002", "model": "decode"}),
                        ("CertificateExpires", "6m"),
                        ("CertificateExpires", "8m", {"severity": "critical", "instance": "a:8002"}),
                        ("QueueGrows", "3m", {"severity": "warning", "instance": "a:8002"}),
                        ("WorkersDie", "4m", {"severity": "warning", "instance": "a:8002"}),
                        ("TimelineWorkersDie", "4m", {"severity": "warning", "instance": "a:8002"}),
                        ("TimelinesFull", "16m", {"severity": "warning", "instance": "a:8002"}),
                        ("RequestsFail", "12m", {"severity": "warning"}),
                        ("TimelinesFull", "14m"),
                        ("Slow", "14m"),
                    )
                ],
            },
            {"interval": "15s", "input_series": [], "alert_rule_test": [
                {"eval_time": "2m", "alertname": "NoTriton", "exp_alerts": [{"exp_labels": {"severity": "critical"}}]}
            ]},
        ],
    }  # fmt: skip
    annotations = {alert["alert"]: alert["annotations"] for alert in ALERTS}
    # What an alert says is not what this is about: it must say something.
    assert all(set(words) == {"summary", "action"} for words in annotations.values())
    stripped = {"groups": [{"name": "clipserve", "rules": [
        {key: value for key, value in alert.items() if key != "annotations"} for alert in ALERTS
    ]}]}  # fmt: skip
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(stripped))
    tests["rule_files"] = [str(tmp_path / "alerts.yml")]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_configuration():
    done = subprocess.run(
        ["promtool", "check", "config", MONITORING / "prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap_and_ask_the_provisioned_source():
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == source["datasources"][0]["uid"]
