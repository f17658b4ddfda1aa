"""Start the server from its settings: one process, or a supervisor with worker processes."""

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE

from app.errors import StartupError
from app.main import create_app, keys_of, load_models, tracing_from_environment
from app.metrics.collectors import BUNDLE_REFUSALS
from app.metrics.processes import FOLDER, check_room, shared_counter
from app.observability import logs
from app.security.addresses import is_loopback
from app.security.tls import Certificate, server_context
from app.server.draining import DrainingServer
from app.server.protocol import Protocol
from app.server.reload import ignore_hangups, reload_on_hangup
from app.server.sockets import bind, listen, raise_file_limit, url_of
from app.server.workers import GRACE_SECONDS, Supervisor, stop_with_supervisor
from app.settings import Settings, read_settings, unknown_variables
from app.vae.loading import is_loading

logger = logging.getLogger("app")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3)."""


def serve() -> None:
    """Serve until a signal stops the process.

    Raises:
        StartupError: a setting or a bundle is wrong.
    """
    settings = read_settings()
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown_variables():
        logger.warning("%s is set, but there is no such setting", name)
    ignore_hangups()  # until the models are loaded
    try:
        raise_file_limit(settings.max_connections, is_tls=settings.tls_certificate is not None)
        sockets = bind(settings.host, settings.port)
        _check_access(settings)
        _warn_if_open(settings)
        if settings.workers == 1:
            _serve_alone(settings, sockets)
        else:
            _serve_with_workers(settings, sockets)
    except StartupError as error:
        if settings.log_format == "text" and not is_loading():
            raise
        _exit(settings, error)
    if is_loading():
        os._exit(0)


def app_from_environment() -> Starlette:
    """Create the application of a worker process; if that fails, exit with one sentence."""
    ignore_hangups()  # the supervisor handles them
    settings = read_settings()
    logs.configure(settings.log_level, settings.log_format)
    stop_with_supervisor(settings.shutdown_seconds)
    try:
        app = create_app(settings, tracing_from_environment())
    except StartupError as error:  # a file has changed since the supervisor checked it
        _exit(settings, error)
    _tune()
    return app


class SingleServer(DrainingServer):
    """The server of a process without a supervisor: does what the supervisor does for a worker.

    Extends uvicorn, which neither logs the URL of given sockets nor ends when a thread hangs.
    """

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to listen, and to reload on SIGHUP.

        Raises:
            StartupError: another server has taken the port since it was bound.
        """
        assert sockets is not None
        listen(sockets)
        await super().startup(sockets)
        reload_on_hangup(self.lifespan.state["server"].catalog)
        _log_url(self.config.host, sockets, is_tls=self.config.is_ssl)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain; kill the process if that takes too long, for example because a graph hangs."""
        ignore_hangups()
        limit = threading.Timer((self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS, _kill)
        limit.daemon = True  # never cancelled: after the drain, Python itself waits for threads that hang
        limit.start()
        await super().shutdown(sockets)


def _kill() -> None:
    logger.error("the server does not stop: it is killed")
    os._exit(128 + signal.SIGTERM)


def _serve_alone(settings: Settings, sockets: list[socket]) -> None:
    app = create_app(settings, tracing_from_environment())
    _tune()
    server = SingleServer(uvicorn.Config(app, **_uvicorn_options(settings)))
    with suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _serve_with_workers(settings: Settings, sockets: list[socket]) -> None:
    """Check that the models can be served, then start workers, which load them again."""
    load_models(settings)
    _log_url(settings.host, sockets, is_tls=settings.tls_certificate is not None)
    with _shared_folder(settings.workers + 1) as os.environ[FOLDER]:
        config = uvicorn.Config("app.server.run:app_from_environment", factory=True, **_uvicorn_options(settings))
        check = partial(_check_restart, settings, shared_counter(*BUNDLE_REFUSALS))
        Supervisor(config, sockets, check).run()


def _log_url(host: str, sockets: list[socket], *, is_tls: bool) -> None:
    logger.info("answering on %s (Press CTRL+C to quit)", url_of(host, sockets, is_tls=is_tls))


def _check_restart(settings: Settings, count_refusal: Callable[[], None]) -> None:
    """Raise StartupError if a new worker could not start; call `count_refusal` if a bundle is the reason."""
    _check_access(settings)
    try:
        load_models(settings)
    except StartupError:
        count_refusal()
        raise


def _check_access(settings: Settings) -> None:
    """Raise StartupError if the keys or the certificate cannot be used."""
    keys_of(settings)
    if settings.tls_certificate is not None:
        Certificate(settings.tls_certificate, settings.tls_key)
    elif settings.tls_key is not None:
        raise StartupError("VAE_TLS_KEY is set, but VAE_TLS_CERTIFICATE is not")


def _warn_if_open(settings: Settings) -> None:
    """Log a warning if other machines can reach the server and need no key."""
    if not settings.asks_for_keys and not is_loopback(settings.host):
        admin = "" if settings.admin_key is None else "; VAE_ADMIN_KEY protects only the management routes"
        logger.warning("no keys are required: anyone who reaches %s may use the models%s", settings.host, admin)


def _exit(settings: Settings, error: StartupError) -> NoReturn:
    """Exit with one sentence, in the format of the log."""
    if settings.log_format == "text":
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        logger.critical("%s", error)
    if is_loading():  # Python's own end would destroy ONNX Runtime while a graph runs, and abort
        os._exit(1)
    sys.exit(1)


def _uvicorn_options(settings: Settings) -> dict[str, Any]:
    certificate, key = settings.tls_certificate, settings.tls_key
    return {
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "log_level": settings.log_level,
        "root_path": settings.root_path,
        "timeout_graceful_shutdown": settings.shutdown_seconds,
        "timeout_keep_alive": settings.keep_alive_seconds,
        "server_header": False,
        "http": Protocol,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
        "ssl_context_factory": None if certificate is None else partial(server_context, certificate, key),
        "ws": "none",  # a WebSocket would leave the protocol and its limits
        "log_config": None,  # `logs.configure` has configured every logger
        "access_log": False,  # the request log is the application's
    }


def _shared_folder(processes: int) -> TemporaryDirectory[str]:
    """Make a temporary directory through which the processes share their metrics."""
    try:
        folder = TemporaryDirectory(prefix="vaeserve-")
        check_room(Path(folder.name), processes)
    except OSError as error:
        raise StartupError(
            f"VAE_WORKERS above 1 needs room in a temporary directory, which TMPDIR may name: {error}"
        ) from None
    return folder


def _tune() -> None:
    """Set what holds for the whole process, when the models are loaded."""
    _tune_allocator()
    _tune_interpreter()


def _tune_allocator() -> None:
    """Have large blocks returned to the system when they are freed.

    glibc keeps blocks of up to 32 MB after the first one is freed, in an arena for each thread: after a few large
    images a process kept hundreds of megabytes.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**22)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**23)  # the two belong together: less makes small arrays slow
        libc.mallopt(_M_ARENA_MAX, 2)


def _tune_interpreter() -> None:
    """Let the event loop run soon though other threads are busy, and look for garbage rarely.

    The loop waits for a busy thread at each of its steps: a millisecond now, and not five. The loaded models are
    excluded from garbage collection. Requests leave hardly any reference cycles, and looking for them took 4 % of a
    small request's time.
    """
    sys.setswitchinterval(0.001)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
