# One State's node. The image holds the program and nothing of the State: settings, keys and databases are under /data.
# Another base, such as a ministry's own: --build-arg BASE=registry/python:3.13 (Python 3.11 or newer with venv).
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS builder
WORKDIR /src
# The locks first: a change of the code alone does not install everything again.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/build \
    && python3 -m venv /opt/verbale \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
    && /opt/verbale/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml ./
COPY app app
COPY migrations migrations
# A node installs nothing when it runs: pip goes, so that nobody else can either.
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/verbale/bin/pip install --no-cache-dir --no-deps --no-index /opt/wheel/*.whl \
    && /opt/verbale/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
# Numeric, so that an orchestrator can see that it is not root; no shell and no home. /data is its only writable place.
RUN groupadd --system --gid 10001 verbale \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin verbale \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=builder /opt/verbale /opt/verbale
# The root file system may be read-only: no bytecode is written there, and pip compiled it already. A container's own
# loopback reaches nobody, so the node listens on every address of it.
ENV PATH=/opt/verbale/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VERBALE_SETTINGS=/data/node.toml \
    VERBALE_LISTEN_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8480
# Alive means that the process answers; whether it should get work is /health/ready, which an orchestrator asks itself.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["verbale", "health"]
ENTRYPOINT ["verbale"]
CMD ["serve"]
