# The server's image: Python, one extra's dependencies at the versions of constraints.txt, the code and the models.
#   docker build -t vaeserve .
#   docker build -t vaeserve:gpu --build-arg EXTRA=gpu .        see docker-compose.gpu.yml for what the host needs

FROM python:3.11-slim AS build
ARG EXTRA=cpu
WORKDIR /build
# The base's pip fills the virtual environment from outside, so that it need not hold one.
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*project['dependencies'], *project['optional-dependencies'][sys.argv[1]], sep='\n')" "$EXTRA" >requirements.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        -c constraints.txt -r requirements.txt \
    && find /opt/venv -type d \( -name tests -o -path '*/onnxruntime/quantization' -o -path '*/onnxruntime/tools' \
        -o -path '*/onnxruntime/transformers' \) -prune -exec rm -rf {} + \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv
COPY LICENSE NOTICE /srv/
COPY app /srv/app
COPY models /srv/models
RUN python -m compileall -q --invalidation-mode unchecked-hash /srv/app && chmod -R a+rX /srv

FROM python:3.11-slim
LABEL org.opencontainers.image.title="vaeserve" \
    org.opencontainers.image.description="A REST inference server for variational autoencoders" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VAE_HOST=0.0.0.0 \
    VAE_PORT=8000
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without the proxies that a container may be given: urllib would ask one of them for 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"VAE_PORT\"]}/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "app"]
