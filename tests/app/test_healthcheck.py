"""The health check of the container, in a process of its own, against a live server."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
import trustme

from tests.conftest import MODELS, ROOT, Start, free_port, launch
from tests.live.test_workers import until
from tests.processes import PATIENCE


def check(**environment: object) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VAE_")}
    return subprocess.run(
        [sys.executable, "-m", "app.healthcheck"],
        cwd=ROOT,
        env=inherited | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_server_that_is_ready_is_healthy_whatever_its_prefix_and_proxies(start: Start) -> None:
    process, client = start(host="0.0.0.0", root_path="/vae")
    nowhere = f"http://127.0.0.1:{free_port()}"
    asked = {"VAE_HOST": "0.0.0.0", "VAE_PORT": client.base_url.port, "VAE_ROOT_PATH": "/vae", "http_proxy": nowhere}
    done = check(**asked)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    process.terminate()
    process.wait(timeout=PATIENCE)
    done = check(**asked)
    assert done.returncode == 1
    assert done.stderr.startswith("no response: ")
    assert "Traceback" not in done.stderr


class Refusal(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(503 if self.path == "/health/ready" else 404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def refusing(context: SSLContext | None = None) -> Iterator[int]:
    """The port of a server that is never ready, with TLS where there is a context."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_a_server_that_is_not_ready_is_unhealthy() -> None:
    with refusing() as port:
        done = check(VAE_PORT=port)
    assert (done.returncode, done.stderr) == (1, "not ready: status 503\n")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A chain and a key in files, of another name and of an authority that nobody trusts."""
    issued = trustme.CA().issue_cert("example.org")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    return chain, key


def test_a_server_with_tls_is_asked_with_tls_and_its_certificate_is_not_verified(certificate: Any) -> None:
    chain, key = certificate
    port = free_port()
    process = launch(port=port, tls_certificate=chain, tls_key=key, models_dir=MODELS / "mnist-2d/2")
    try:
        assert until(lambda: check(VAE_PORT=port, VAE_TLS_CERTIFICATE=chain).returncode == 0, seconds=60)
        assert check(VAE_PORT=port).returncode == 1  # without
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_a_server_with_tls_that_is_not_ready_is_unhealthy(certificate: Any) -> None:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with refusing(context) as port:
        done = check(VAE_PORT=port, VAE_TLS_CERTIFICATE=certificate[0])
    assert (done.returncode, done.stderr) == (1, "not ready: status 503\n")


def test_it_starts_quickly() -> None:
    """It takes in nothing of the server or of other packages: that would be most of a second, every few seconds."""
    command = [sys.executable, "-c", "import sys, app.healthcheck; print(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    foreign = {name for name in packages - set(sys.stdlib_module_names) if not name.startswith("_")}
    assert foreign == {"app"}
    assert [name for name in done.stdout.split() if name.startswith("app")] == ["app", "app.healthcheck"]
