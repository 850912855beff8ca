#!/usr/bin/env bash
# Compiles Triton's ONNX Runtime and LibTorch backends, for CPUs, into .cache/backends: test_cpp_backends.py and the
# compose tests serve with them. Their own build needs a container of NVIDIA; the tritonserver of the wheel loads these
# as well.
#
#   build_cpp_backends.sh SOURCES HEADERS LIBRARIES
#
# SOURCES    checkouts of core, common, backend, onnxruntime_backend and pytorch_backend, of
#            https://github.com/triton-inference-server, at the branch of the wheel's Triton: r24.10
# HEADERS    a folder with onnxruntime_c_api.h; not newer than LIBRARIES (Debian: libonnxruntime-dev)
# LIBRARIES  the shared libraries of ONNX Runtime with OpenVINO: onnxruntime/capi in the wheel onnxruntime-openvino
#
# It needs g++ and RapidJSON (Debian: rapidjson-dev). LibTorch is the torch of `python`.
set -euo pipefail
sources=$(realpath "$1") headers=$(realpath "$2") libraries=$(realpath "$3")
torch=$(python -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
cd "$(dirname "$0")/../.."
out=$PWD/.cache/backends
objects=$(mktemp -d)
trap 'rm -r "$objects"' EXIT

compile() { # OBJECT SOURCE FLAG...
  g++ -std=c++20 -O1 -fPIC -w -I"$sources/core/include" -I"$sources/common/include" -I"$sources/backend/include" \
    -DTRITON_ENABLE_LOGGING -DTRITON_ENABLE_STATS -DTRITON_ENABLE_METRICS "${@:3}" -c "$sources/$2" -o "$objects/$1.o"
}

link() { # NAME FLAG...
  g++ -shared -o "$out/$1/libtriton_$1.so" "$objects"/shared_*.o "$objects/$1"_*.o "${@:2}" \
    -Wl,--version-script="$(echo "$sources"/*/src/"libtriton_$1.ldscript")"
}

rm -rf "$out"
mkdir -p "$out/onnxruntime" "$out/pytorch"
for part in common input_collector memory model model_instance output_responder; do
  compile "shared_$part" "backend/src/backend_$part.cc"
done
for part in async_work_queue thread_pool error; do
  compile "shared_$part" "common/src/$part.cc"
done

for part in onnxruntime onnxruntime_loader onnxruntime_utils; do
  compile "onnxruntime_$part" "onnxruntime_backend/src/$part.cc" -I"$headers" -DTRITON_ENABLE_ONNXRUNTIME_OPENVINO
done
cp "$libraries"/*.so* "$out/onnxruntime"
rm -f "$out"/onnxruntime/onnxruntime_pybind*
mv "$out"/onnxruntime/libonnxruntime.so.1.* "$out/onnxruntime/libonnxruntime.so.1"
link onnxruntime "$out/onnxruntime/libonnxruntime.so.1" -Wl,-rpath,'$ORIGIN'

for part in libtorch libtorch_utils; do
  compile "pytorch_$part" "pytorch_backend/src/$part.cc" -I"$torch/include" -I"$torch/include/torch/csrc/api/include"
done
cp "$torch"/lib/lib{torch,torch_cpu,c10,gomp}.so* "$out/pytorch"
link pytorch -L"$torch/lib" -ltorch -ltorch_cpu -lc10 -Wl,-rpath,'$ORIGIN'
echo "$out"
