"""Triton's own time stamps of requests to an ensemble, as spans that follow each other."""

from __future__ import annotations

from typing import Any

from clipserve_export.specs import ModelSpec


def read_traces(traces: list[dict[str, Any]], spec: ModelSpec) -> list[dict[str, float]]:
    """Milliseconds of each part of each ensemble request, in the order they came."""
    stamps: dict[int, dict[str, int]] = {}
    facts: dict[int, dict[str, Any]] = {}
    for entry in traces:
        if "model_name" in entry:
            facts[entry["id"]] = entry
        for stamp in entry.get("timestamps", []):
            stamps.setdefault(entry["id"], {})[stamp["name"]] = stamp["ns"]
    steps: dict[int, dict[str, dict[str, int]]] = {}
    for number, fact in facts.items():
        if "parent_id" in fact:
            steps.setdefault(fact["parent_id"], {})[fact["model_name"]] = stamps[number]
    rows = []
    for number in sorted(steps):
        whole, decode, net = stamps[number], steps[number]["decode"], steps[number][spec.net_name]
        moments = {
            "arrival": whole["REQUEST_START"],
            "decode: queue": decode["COMPUTE_START"],
            # The decode step answers later than it returns, so its end is the next one's beginning.
            "decode: step": net["REQUEST_START"],
            "network: queue": net["COMPUTE_START"],
            "network: step": net["COMPUTE_OUTPUT_START"],
            "answer": whole["INFER_RESPONSE_COMPLETE"],
        }
        times = list(moments.values())
        rows.append({name: (b - a) / 1e6 for name, a, b in zip(list(moments)[1:], times, times[1:], strict=False)})
    return rows
