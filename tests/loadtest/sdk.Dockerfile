# Stands in for nvcr.io/nvidia/tritonserver:...-py3-sdk where no registry is reached: perf_analyzer of PyPI's tritonclient.
ARG SLIM_IMAGE
FROM ${SLIM_IMAGE}
RUN apt-get update -q && apt-get install -y --no-install-recommends libssl3 libstdc++6 && rm -rf /var/lib/apt/lists/*
COPY unpacked /opt/perf_analyzer
ENV PATH=/opt/perf_analyzer:${PATH} \
    LD_LIBRARY_PATH=/opt/perf_analyzer:/opt/perf_analyzer/libb64/usr/lib/x86_64-linux-gnu
