# gmpd in a container. Targets: runtime (the daemon and its command line), load (with locust),
# cluster (with Dask: the daemon, the scheduler and the hosts of a cluster, by their commands).
#
#   docker build -t gmpd .            docker build -t gmpd-load --target load .

FROM python:3.13-slim-bookworm AS build
RUN python -m venv /opt/gmpd
ENV PATH=/opt/gmpd/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The core is compiled, or the build fails; the compiler stays in this stage. --build-arg GMPD_PURE=1
# takes pure Python, and no compiler.
ARG GMPD_PURE=0
RUN test "$GMPD_PURE" = 1 \
 || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; }
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .build .build
COPY gmpd gmpd
# Packages that jobs import: --build-arg EXTRA="pandas sqlalchemy".
ARG EXTRA=""
RUN pip install . ${EXTRA}

FROM build AS build-load
RUN pip install ".[load]"

FROM build AS build-cluster
RUN pip install ".[dask]"

FROM python:3.13-slim-bookworm AS base
# A number, not only a name, so that an orchestrator can check that it is not root.
RUN groupadd --gid 10001 gmpd \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/gmpd gmpd \
 && install -d -o gmpd -g gmpd -m 0700 /run/gmpd /var/lib/gmpd
ENV PATH=/opt/gmpd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GMPD_RUNTIME_DIR=/run/gmpd \
    GMPD_STATE_DIR=/var/lib/gmpd
USER 10001:10001
# Modules with jobs are mounted here, and found by the workers.
ENV PYTHONPATH=/srv
WORKDIR /srv

FROM base AS load
COPY --from=build-load /opt/gmpd /opt/gmpd
ENTRYPOINT ["locust"]

FROM base AS cluster
COPY --from=build-cluster /opt/gmpd /opt/gmpd
STOPSIGNAL SIGTERM
CMD ["gmpd", "serve"]

FROM base AS runtime
COPY --from=build /opt/gmpd /opt/gmpd
EXPOSE 7412
# SIGTERM drains. Give it longer than daemon.drain_timeout (30 s): docker stop --timeout 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --retries=5 --start-period=10s CMD ["gmpd", "health"]
CMD ["gmpd", "serve"]
