#!/bin/bash
# What the compose service `loadtest` runs: the load test with the places of its container. More options follow.
set -euo pipefail

if [[ ! -w /results ]]; then
    echo "user $(id -u) cannot write benchmarks/load/results; CLIPSERVE_UID is who owns this checkout" >&2
    exit 2
fi
# Where the metrics of the server are that CLIPSERVE_URL names.
exec python3 /clipserve/benchmarks/load \
    --key-file /run/clipserve/admin_key --metrics-url "http://${CLIPSERVE_URL%:*}:8002/metrics" \
    --videos /videos --out /results "$@"
