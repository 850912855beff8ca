#!/usr/bin/env bash
# Tests and measures clipserve on a GPU machine without a network, from what pack.sh has packed (docs/gpu-server.md).
#
#     bash run.sh [tests] [service[=MINUTES]] [networks[=MINUTES]] [settings[=MINUTES]]
#
# Unpacks the archives that lie beside it into WORK (/tmp/clipserve-gpu), which may take several calls, and runs the steps
# that are named: the tests that need a GPU, benchmarks.gpu_service (6 minutes), benchmarks.gpu (3.5), and decoding with
# other settings of the decode step (1 for each choice). After each step, logs and results are in RESULTS
# (WORK/results.tar.gz). Needs Python 3.12 with torch for CUDA 13, onnx, onnxscript, typer, matplotlib, psutil, pytest and
# pytest-timeout. SECONDS_EACH (400) is the most that a step may take, SECONDS_IN_ALL (none) the most for all of them: the
# step that runs then is interrupted, and keeps its results. QUICK=1 rehearses without a GPU.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(realpath -m "${WORK:-/tmp/clipserve-gpu}")
results=$(realpath -m "${RESULTS:-$work/results.tar.gz}")
limit=${SECONDS_EACH:-400}
end=${SECONDS_IN_ALL:-1000000}
python=${PYTHON:-python3}
# The default, fewer streams in more processes, and more workers beside them.
CHOICES=("nvdec_processes=3 nvdec_streams=6" "nvdec_processes=6 nvdec_streams=3" "nvdec_processes=5 nvdec_streams=5"
    "nvdec_processes=3 nvdec_streams=6 workers=14")
for each in "$@"; do
    [[ $each =~ ^(tests|((service|networks|settings)(=[0-9.]+)?))$ ]] || {
        echo "$each is none of tests, service, networks, settings; such as service=4 takes 4 minutes"
        exit 2
    }
done
mkdir -p "$work/results"

for name in triton packages code; do
    [ -e "$here/$name.tar.xz" ] || continue
    to=$work/site
    [ $name != code ] || to=$work/code
    mkdir -p "$to"
    "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="tar")' \
        "$here/$name.tar.xz" "$to" && touch "$work/$name.unpacked" && echo "unpacked $name"
done
[ $# -gt 0 ] || exit 0
for name in triton packages code; do
    [ -e "$work/$name.unpacked" ] || { echo "$name.tar.xz has not been unpacked yet: put it beside run.sh"; exit 1; }
done

# An environment with the packages brought along first, then those of this machine.
venv=$work/venv
if [ ! -e "$venv/.ready" ]; then
    "$python" -m venv --without-pip "$venv"
    paths() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
    site=$(paths "$venv/bin/python")
    printf '%s\n' "$work/code/client" "$work/code/export" "$work/code/server" \
        "$work/code/model_repository/decode/1/packages" "$work/site" "$(paths "$python")" > "$site/clipserve.pth"
    mkdir -p "$site/clipserve-0.1.0.dist-info"
    printf 'Metadata-Version: 2.1\nName: clipserve\nVersion: 0.1.0\n' > "$site/clipserve-0.1.0.dist-info/METADATA"
    printf '#!/bin/sh\nexec "%s" -m clipserve "$@"\n' "$venv/bin/python" > "$venv/bin/clipserve"
    chmod +x "$venv/bin/clipserve"
    touch "$venv/.ready"
fi
export PATH=$venv/bin:$PATH PYTHONUNBUFFERED=1
unset PYTHONPATH
cd "$work/code"

step() { # NAME COMMAND...
    local name=$1 started=$SECONDS seconds=$((end - SECONDS)) status
    shift
    [ "$seconds" -gt 0 ] || { echo "== $name: left out, the time is over"; return; }
    # Ctrl-C reaches timeout, in the foreground, and the step only by it: a second one would end what writes the results.
    timeout --foreground --signal=INT --kill-after=20 "$((seconds < limit ? seconds : limit))" setsid "$@" \
        > "$work/results/$name.log" 2>&1
    status=$?
    echo "== $name: exit $status after $((SECONDS - started)) s"
    tail -n 25 "$work/results/$name.log"
    collect
}
collect() {
    find benchmarks/results -newer "$venv/.ready" -type f -exec cp {} "$work/results/" \;
    tar -czf "$results.part" -C "$work" results && mv "$results.part" "$results"
}
trap 'collect; exit 130' INT TERM # when the step has ended
step machine python -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name(0))'
for each in "$@"; do
    IFS='=' read -r name minutes <<< "$each"
    case $name in
        tests)
            # By file: others import packages that are not here. Without ONNX Runtime on CUDA, not those that need it.
            mapfile -t files < <(grep -rlE 'needs\("(gpu|nvdec)"\)' tests)
            without=$(python -c 'from onnxruntime import get_available_providers as found
print("" if "CUDAExecutionProvider" in found() else "not onnx and not packages_can_use")')
            CLIPSERVE_REQUIRE=$([ -n "${QUICK:-}" ] || echo gpu,nvdec) \
                step tests python -m pytest -q -m "gpu or nvdec" -k "$without" "${files[@]}"
            ;;
        service) step service python -m benchmarks.gpu_service --minutes "${minutes:-6}" ${QUICK:+--quick} ;;
        networks) step networks python -m benchmarks.gpu --minutes "${minutes:-3.5}" ${QUICK:+--device cpu --quick} ;;
        settings)
            for number in "${!CHOICES[@]}"; do
                # shellcheck disable=SC2086 # a choice has several words
                step "settings-$number" python -m benchmarks.gpu_service --parts decode --decoders auto --first 4 \
                    --minutes "${minutes:-1}" ${QUICK:+--quick} --out "$work/results/settings-$number" --set ${CHOICES[$number]}
            done
            ;;
    esac
done
echo "logs and results: $results"
