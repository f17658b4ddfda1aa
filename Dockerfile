# The server's image: Python, the locked dependencies, the code and the models.
#   docker build -t vaeserve .
#   docker build -t vaeserve:gpu --build-arg VARIANT=-gpu .        for NVIDIA GPUs; see docs/containers.md

FROM python:3.11-slim AS build
# `-gpu` selects requirements-gpu.lock and sbom-gpu.cdx.json.
ARG VARIANT=
WORKDIR /build
# The base image's pip installs into the virtual environment, which therefore needs no pip of its own.
RUN python -m venv --without-pip /opt/venv
COPY requirements*.lock scripts/prune ./
# Only wheels: building a source distribution runs its code and may need a compiler.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r "requirements$VARIANT.lock" \
    && python prune /opt/venv \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv
COPY LICENSE NOTICE sbom*.cdx.json /srv/
COPY app /srv/app
COPY models /srv/models
# The image has one SBOM, with the same name in every variant.
RUN mv "/srv/sbom$VARIANT.cdx.json" /tmp/sbom && rm /srv/sbom*.cdx.json && mv /tmp/sbom /srv/sbom.cdx.json \
    && python -m compileall -q --invalidation-mode unchecked-hash /srv/app && chmod -R a+rX /srv

FROM python:3.11-slim
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VAE_HOST=0.0.0.0 \
    VAE_PORT=8000
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
# Origin of the build: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=<URL of the repository>
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="vaeserve" \
    org.opencontainers.image.description="A REST inference server for variational autoencoders" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "app.healthcheck"]
ENTRYPOINT ["python", "-m", "app"]
