"""The values that the chart is rendered with in tests. Together they have every object and every option."""

from typing import Any

import yaml

from tests.deploy.helm import CHART, ROOT

Values = dict[str, Any]


def read_page_values() -> Values:
    """The first block of docs/kubernetes.md: forty.yaml."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    values: Values = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    return values


CPU: Values = yaml.safe_load((CHART / "values-cpu.yaml").read_text())
STORE = {"from": "objectStore", "objectStore": {"url": "s3://models/clipserve"}}
TLS = {"mode": "mutual", "secret": "clipserve-tls", "clientSecret": "clipserve-client"}
KEYS = {"adminSecret": "clipserve-keys"}
PROMETHEUS = "http://prometheus-operated.monitoring:9090"
MATRIX: dict[str, Values] = {
    "default": {},
    "cpu": CPU,
    "forty": read_page_values(),
    "gcs": {"replicas": 3, "repository": {"from": "objectStore", "objectStore": {"url": "gs://models/clipserve"}}},
    "azure": {
        "repository": {"from": "objectStore", "objectStore": {"url": "az://models/clipserve", "secret": "store"}}
    },
    "minio": {
        "repository": {
            "from": "objectStore",
            "objectStore": {
                "url": "s3://models/clipserve",
                "options": {"provider": "Minio", "endpoint": "http://minio:9000"},
                "secret": "store",
            },
        }
    },
    "init_container": {"repository": {"from": "initContainer", "initContainer": {"image": "models:7", "args": ["-x"]}}},
    "claim": {"repository": {"claim": {"existing": "nfs"}}, "replicas": 2},
    "export": {
        "models": ["motion"],
        "export": {"enabled": True, "models": ["motion"], "options": ["--precision", "fp16"]},
        "repository": {"claim": {"storageClass": "nfs"}},
    },
    "hpa": {"autoscaling": {"kind": "hpa", "networkWaiting": 32}},
    "keda": {"autoscaling": {"kind": "keda", "prometheus": PROMETHEUS, "networkWaiting": 32}},
    "tls": {"tls": TLS, "keys": {**KEYS, "apiSecret": "clipserve-keys"}},
    "gateway": {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["clips.example.org"]}},
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "clips.example.org",
            "tlsSecret": "clips",
            "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        },
        "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "ingress-nginx"}}}]},
    },
    "operator": {
        "monitoring": {"podMonitor": True, "alerts": "prometheusRule", "dashboard": True, "labels": {"a": "b"}}
    },
    "config_maps": {"monitoring": {"alerts": "configMap", "dashboard": True, "datasource": "clipserve"}},
    "tools": {"tls": TLS, "keys": KEYS, "showcase": {"enabled": True}, "loadtest": {"enabled": True}},
    "showcase": {"showcase": {"enabled": True, "model": "x3d_m"}},
    "placement": {
        "image": {
            "registry": "registry.example.org/video/",
            "tag": "1",
            "pullPolicy": "Always",
            "pullSecrets": ["pull"],
        },
        "placement": {
            "spread": "DoNotSchedule",
            "nodeSelector": {"gpu": "h100"},
            "affinity": {"podAntiAffinity": {}},
            "runtimeClassName": "nvidia",
            "priorityClassName": "high",
        },
        "pod": {"user": 2000, "labels": {"team": "video"}, "annotations": {"note": "x"}},
        "server": {"traceUrl": "http://collector:4318/v1/traces", "environment": {"EXTRA": 1}},
        "networkPolicy": {"egress": [{"to": [{"podSelector": {}}]}], "clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "serviceAccount": {"annotations": {"role": "models"}},
        "drain": {"preStopSeconds": 0},
    },
    "kserve": {
        "kserve": {"enabled": True, "storageUri": "s3://models/clipserve"},
        "autoscaling": {"kind": "keda", "prometheus": PROMETHEUS},
        "tls": TLS,
        "pod": {"labels": {"team": "video"}, "annotations": {"note": "x"}},
    },
    "kserve_canary": {
        "kserve": {
            "enabled": True,
            "storageUri": "pvc://models/clipserve",
            "deploymentMode": "Knative",
            "canaryTrafficPercent": 10,
        },
        "replicas": 0,
        "placement": {"tolerations": []},
    },
}
