#!/usr/bin/env bash
# Packs what a GPU machine without a network needs to test and measure this repository (docs/gpu-server.md).
#
#     benchmarks/gpu_machine/pack.sh [FOLDER]
#
# Writes into FOLDER (.cache/gpu_machine): triton.tar.xz and packages.tar.xz, packages for Python 3.12 on Linux x86-64,
# of some 50 MB each; code.tar.xz, the last commit; and run.sh, which runs there. Packages that are packed already are
# kept. Needs a network, pip and xz.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-.cache/gpu_machine}" && cd "${1:-.cache/gpu_machine}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The versions of constraints.txt, but for the packages that Triton's Python backend needs in others.
grep -viE '^(numpy|torch|pandas|scikit-learn|scipy|pyarrow|matplotlib)==' constraints.txt > "$work/constraints.txt"
packages() { # NAME PACKAGE...
    local name=$1 platforms=() version
    shift
    [ ! -e "$folder/$name.tar.xz" ] || { echo "$folder/$name.tar.xz is kept"; return; }
    echo "packing $name: this takes a minute"
    for version in _2_35 _2_28 _2_27 _2_17 2014; do
        platforms+=(--platform "manylinux${version}_x86_64")
    done
    PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install -q --no-deps --no-compile --only-binary=:all: \
        --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none "${platforms[@]}" --platform any \
        --constraint "$work/constraints.txt" --target "$work/$name" "$@"
    # Stubs for other Pythons, and examples.
    find "$work/$name" -path '*/python_backend_stubs/*' -prune -not -name 3.12 -exec rm -rf {} +
    rm -rf "$work/$name"/{bin,external,samples}
    tar -cJf "$folder/$name.tar.xz.part" -C "$work/$name" .
    mv "$folder/$name.tar.xz.part" "$folder/$name.tar.xz"
}
source_packages() { # PACKAGE...: those that have no wheel; they are pure Python
    python3 -m pip install -q --no-deps --no-compile --disable-pip-version-check \
        --constraint "$work/constraints.txt" --target "$work/packages" "$@"
}

packages triton nvidia-pytriton==0.7.0 numpy==1.26.4
[ -e "$folder/packages.tar.xz" ] || source_packages pytorchvideo==0.1.5 fvcore iopath
packages packages av==18.1.0 PyNvVideoCodec==2.2.4 tritonclient grpcio protobuf python-rapidjson termcolor yacs pytest-asyncio \
    scikit-video==1.1.11
git archive HEAD | xz -6 > "$folder/code.tar.xz"
cp benchmarks/gpu_machine/run.sh "$folder"
ls -l "$folder"
