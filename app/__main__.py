"""`python -m app`: serve the models directory as the `VAE_*` settings say."""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import socket
from ssl import SSLContext
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE

from app import __version__
from app.errors import StartupError
from app.main import check_models, create_app, keys_of, tracing_from_environment
from app.metrics.collectors import BUNDLE_REFUSALS
from app.metrics.processes import FOLDER, check_room, shared_counter
from app.observability import logs
from app.security.tls import Certificate, server_context
from app.server.descriptors import make_room
from app.server.listening import address_of, bind, is_loopback, listen
from app.server.protocol import Protocol
from app.server.reload import ignore_hangups
from app.server.run import Server
from app.server.supervisor import Supervisor
from app.server.worker import GRACE_SECONDS, end_with_supervisor
from app.settings import Settings, read_settings, unknown_variables

logger = logging.getLogger("app")


def app_from_environment() -> Starlette:
    """The application of one worker process; where it cannot start, the process ends with one sentence."""
    ignore_hangups()  # the supervisor heeds them
    settings = read_settings()
    logs.configure(settings.log_level, settings.log_format)
    end_with_supervisor(settings.shutdown_seconds)
    try:
        application = create_app(settings, tracing_from_environment())
    except StartupError as error:  # what was proven at the supervisor's start is so no more
        _end(settings, error)
    _spare_the_collector()
    return application


def serve() -> None:
    """Start the server.

    Raises:
        StartupError: a setting or a bundle is wrong.
    """
    settings = read_settings()
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown_variables():
        logger.warning("%s is set, but there is no such setting", name)
    ignore_hangups()  # until there is something to reload
    try:
        make_room(settings.max_connections)
        sockets = bind(settings.host, settings.port)
        _check_access(settings)
        _warn_if_open(settings)
        if settings.workers == 1:
            _serve_alone(settings, sockets)
        else:
            _serve_with_workers(settings, sockets)
    except StartupError as error:
        if settings.log_format == "text":
            raise
        _end(settings, error)


def _end(settings: Settings, error: StartupError) -> NoReturn:
    """End the process with one sentence, in the form that whoever reads the log expects."""
    if settings.log_format == "text":
        sys.exit(f"error: {error}")
    logger.critical("%s", error)
    sys.exit(1)


def _check_access(settings: Settings) -> None:
    """Raises StartupError where the keys or the certificate cannot be used."""
    keys_of(settings)
    if settings.tls_certificate is not None:
        Certificate(settings.tls_certificate, settings.tls_key)
    elif settings.tls_key is not None:
        raise StartupError("VAE_TLS_KEY is set, but VAE_TLS_CERTIFICATE is not")


def _warn_if_open(settings: Settings) -> None:
    """Say what everyone may do who reaches the server."""
    if not settings.asks_for_keys and not is_loopback(settings.host):
        alone = "" if settings.admin_key is None else "; VAE_ADMIN_KEY guards the management routes alone"
        logger.warning("no keys are asked for: whoever reaches %s may use the models%s", settings.host, alone)


def _serve_alone(settings: Settings, sockets: list[socket]) -> None:
    app = create_app(settings, tracing_from_environment())
    _spare_the_collector()
    server = _Server(uvicorn.Config(app, **_options(settings)))
    with suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class _Server(Server):
    """A server that says where it answers, as uvicorn does not of sockets that it is given."""

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Raises StartupError where another server has taken the port since it was bound."""
        assert sockets is not None
        listen(sockets)
        await super().startup(sockets)
        logger.info(
            "answering on %s (Press CTRL+C to quit)", address_of(self.config.host, sockets, is_tls=self.config.is_ssl)
        )

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop; where something hangs, a graph perhaps, it is not waited for."""
        limit = threading.Timer((self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS, _give_up)
        limit.daemon = True  # it lasts as long as the process does
        limit.start()
        await super().shutdown(sockets)


def _give_up() -> None:
    logger.error("the server does not stop: it is killed")
    os._exit(128 + signal.SIGTERM)


def _serve_with_workers(settings: Settings, sockets: list[socket]) -> None:
    """Each worker loads its own models; that they can be served is proven before."""
    check_models(settings)
    logger.info(
        "answering on %s (Press CTRL+C to quit)",
        address_of(settings.host, sockets, is_tls=settings.tls_certificate is not None),
    )
    with _shared_folder(settings.workers + 1) as os.environ[FOLDER]:
        config = uvicorn.Config("app.__main__:app_from_environment", factory=True, **_options(settings))
        check = partial(_check_again, settings, shared_counter(*BUNDLE_REFUSALS))
        Supervisor(config, sockets, check).run()


def _check_again(settings: Settings, count_refusal: Callable[[], None]) -> None:
    """Raises StartupError where a worker could not start any more."""
    _check_access(settings)
    try:
        check_models(settings)
    except StartupError:
        count_refusal()
        raise


def _tls(settings: Settings) -> Callable[..., SSLContext] | None:
    """What makes TLS of a connection, in any process; None without a certificate."""
    if settings.tls_certificate is None:
        return None
    return partial(server_context, settings.tls_certificate, settings.tls_key)


def _options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options."""
    return {
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "log_level": settings.log_level,
        "root_path": settings.root_path,
        "timeout_graceful_shutdown": settings.shutdown_seconds,
        "server_header": False,
        "http": Protocol,
        "forwarded_allow_ips": settings.trusted_proxies,
        "ssl_context_factory": _tls(settings),
        "ws": "none",  # there are none, and they would leave the protocol and its limits
        "log_config": None,  # ours has every logger
        "access_log": False,  # and tells of requests, too
    }


@contextmanager
def _shared_folder(processes: int) -> Iterator[str]:
    """Where so many processes add up their metrics; gone at the end."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="vaeserve-"))
            check_room(Path(folder), processes)
        except OSError as error:
            raise StartupError(
                f"VAE_WORKERS above 1 needs room in a temporary directory, which TMPDIR may name: {error}"
            ) from None
        yield folder


def _spare_the_collector() -> None:
    """Leave out of garbage collections what is loaded now and stays, and collect what requests leave less often: they
    leave hardly any cycles, and looking for them took 4 % of a small request's time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def main() -> None:
    """The command: without arguments, it serves; where it cannot start, it ends with one sentence."""
    lines = [f"  VAE_{name.upper():20} {field.description}" for name, field in Settings.model_fields.items()]
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve the models directory. The settings are environment variables:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    try:
        serve()
    except StartupError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
