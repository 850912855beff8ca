# Stands in for prom/prometheus with Debian's package.
ARG SLIM_IMAGE
FROM ${SLIM_IMAGE}
RUN apt-get update -q && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
