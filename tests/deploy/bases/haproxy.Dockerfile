# Stands in for haproxy:3.2 with Debian's package.
ARG SLIM_IMAGE
FROM ${SLIM_IMAGE}
RUN apt-get update -q && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
CMD ["haproxy"]
