# Stands in for nvcr.io/nvidia/tritonserver where no registry is reached: the genuine tritonserver of the wheel
# nvidia-pytriton at /opt/tritonserver. The wheel lacks the C++ backends: they are compiled, or clipserve's substitutes.
ARG SLIM_IMAGE
FROM ${SLIM_IMAGE}
RUN python3 -m pip install --no-cache-dir --break-system-packages --root-user-action=ignore \
        onnxruntime==1.32.0 'numpy<2'
COPY tritonserver /opt/tritonserver
COPY packages /usr/local/lib/python3.11/dist-packages
ENV LD_LIBRARY_PATH=/opt/tritonserver/lib PATH=/opt/tritonserver/bin:${PATH}
