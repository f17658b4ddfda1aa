"""HTTPS, spoken by the server itself: its certificate, its renewal, and what stops the start."""

import os
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import trustme

from app.errors import StartupError
from app.security.tls import Certificate
from tests.conftest import ROOT, Start, free_port, launch
from tests.processes import PATIENCE, until

AUTHORITY = trustme.CA()


def issue(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """A chain and a key in files."""
    certificate = AUTHORITY.issue_cert(name)
    chain, key = folder / "chain.pem", folder / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return chain, key


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def command(*arguments: str, **environment: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command that asks a server."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def serial(port: int) -> str:
    """Of the certificate that the server shows."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        trusting().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        found = secure.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_speaks_https_and_takes_a_renewed_certificate(tmp_path: Path, workers: int) -> None:
    chain, key = issue(tmp_path)
    port = free_port()
    process = launch(
        port=port, workers=workers, tls_certificate=chain, tls_key=key, models_dir=ROOT / "models/mnist-2d/2"
    )
    try:
        with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting(), timeout=PATIENCE) as client:

            def is_ready() -> bool:
                try:
                    return client.get("/health/ready").status_code == 200
                except httpx2.TransportError:
                    return False

            assert until(is_ready)
            assert client.get("/sample/image", params={"n": 4}).content.startswith(b"\x89PNG")
            body = client.get("/sample/npy", params={"n": 256, "seed": 1}).content
            assert len(body) > 200_000
            assert (
                client.post("/encode/npy", content=body, headers={"Content-Type": "application/x-npy"}).status_code
                == 200
            )
            before = serial(port)
            issue(tmp_path)
            assert until(lambda: serial(port) != before)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{port}/health/ready")
    finally:
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert f"answering on https://127.0.0.1:{port}" in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that speaks it."""
    port, (chain, key) = free_port(), issue(tmp_path_factory.mktemp("https"))
    quiet = {"models_dir": ROOT / "models/mnist-2d/2", "log_level": "warning"}  # nobody reads its log while it answers
    process = launch(port=port, tls_certificate=chain, tls_key=key, **quiet)

    def answers() -> bool:
        try:
            return bool(serial(port))
        except OSError:
            return False

    try:
        assert until(answers)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_without_file_descriptors_connections_wait_and_the_log_says_so(tmp_path: Path) -> None:
    port, (chain, key), log = free_port(), issue(tmp_path), tmp_path / "log"
    process = launch(log=log, port=port, tls_certificate=chain, tls_key=key, models_dir=ROOT / "models/mnist-2d/2")
    try:
        assert until(lambda: "answering on" in log.read_text())
        assert serial(port)
        _, hard = limit = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, hard))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as waiting:
            assert until(lambda: "no connection can be accepted: Too many open files" in log.read_text())
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)
            with trusting().wrap_socket(waiting, server_hostname="127.0.0.1") as secure:
                assert secure.getpeercert()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("words", [("models",), ("bench", "--duration", "0.1")], ids=lambda words: words[0])
def test_commands_tell_a_certificate_that_is_not_trusted_from_no_server(
    tmp_path: Path, https: int, words: tuple[str, ...]
) -> None:
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    url, other = f"https://127.0.0.1:{https}", f"https://localhost:{https}"
    status, text, told = command(*words, "--url", url)
    assert (status, text) == (1, "")
    assert told.startswith(f"error: the certificate of {url} is not trusted: unable to get local issuer certificate. ")
    assert "SSL_CERT_FILE" in told
    status, text, told = command(*words, "--url", url, SSL_CERT_FILE=authority)
    assert (status, told) == (0, "")
    assert "mnist-2d" in text
    status, _, told = command(*words, "--url", other, SSL_CERT_FILE=authority)
    assert told.startswith(f"error: the certificate of {other} is not trusted: Hostname mismatch")


def test_commands_tell_a_server_without_tls_from_none(start: Start) -> None:
    _, client = start(models_dir=ROOT / "models/mnist-2d/2")
    url = f"https://127.0.0.1:{client.base_url.port}"
    status, text, told = command("models", "--url", url)
    assert (status, text) == (1, "")
    assert told.startswith(f"error: there is no TLS with {url}: ")
    assert told.endswith("Should --url begin with http://?\n")


def test_a_broken_renewal_leaves_the_certificate_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain, key = issue(tmp_path)
    certificate = Certificate(chain, key)
    server, client = ssl.MemoryBIO(), ssl.MemoryBIO()
    chain.write_text("half a certifi")
    shown = certificate.context.wrap_bio(client, server, server_side=True)
    asking = trusting().wrap_bio(server, client, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (asking, shown):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert asking.getpeercert()
    assert "the certificate stays as it was" in caplog.text


def test_what_stops_the_start(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    (tmp_path / "other").mkdir()
    _, foreign = issue(tmp_path / "other")
    for given, words in (
        ((chain, foreign), "do not belong together"),
        ((tmp_path / "none", key), "cannot be read: No such file"),
        ((key, key), "not PEM"),
        ((chain, None), "not PEM"),
    ):
        with pytest.raises(StartupError, match=words):
            Certificate(*given)


def test_a_key_without_a_certificate_is_one_sentence(tmp_path: Path) -> None:
    process = launch(port=free_port(), tls_key=tmp_path / "key.pem")
    _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, log) == (1, "error: VAE_TLS_KEY is set, but VAE_TLS_CERTIFICATE is not\n")


_OPEN = "no keys are required: anyone who reaches 0.0.0.0 may use the models"
_ADMIN = {"admin_key": "a-key-of-16-chars"}


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"host": "0.0.0.0"}, f"{_OPEN}\n"),
        ({"host": "0.0.0.0", **_ADMIN}, f"{_OPEN}; VAE_ADMIN_KEY protects only the management routes\n"),
        ({"host": "0.0.0.0", **_ADMIN, "auth": "keys"}, ""),
        ({"host": "0.0.0.0", "api_key": "a-key-of-16-chars"}, ""),
        (_ADMIN, ""),
        ({}, ""),
    ],
)
def test_a_server_that_asks_nobody_for_a_key_says_so_where_others_can_reach_it(
    start: Start, settings: dict[str, object], warning: str
) -> None:
    process, _ = start(models_dir=ROOT / "models/mnist-2d/2", **settings)
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert warning in log
    assert ("no keys are required" in log) == bool(warning)
