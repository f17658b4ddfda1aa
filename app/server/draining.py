"""uvicorn's server, which also serves the connections in the backlog when it stops, and limits TLS handshakes."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from socket import socket

import uvicorn

from app.server.connections import Connections, client_address
from app.server.handshakes import Handshakes
from app.server.sockets import listen

_NO_LIMIT = 86_400.0
"""Seconds for the end of a TLS connection by the event loop's clock, which counts the time in which the client reads
its answer. `GentleTransport` ends the connection."""


class DrainingServer(uvicorn.Server):
    """A server of one process; other processes may listen on the same sockets.

    Extends uvicorn, which closes its listeners at once: the kernel then resets every connection of the backlog, even if
    its request is already sent. Nor does uvicorn limit TLS handshakes.
    """

    tls_seconds = 10.0
    """Maximum seconds for a TLS handshake."""
    handshake_seconds = 1.0
    """Maximum seconds for a TLS handshake when the server stops, whether it is in progress or still in the backlog."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = Connections()
        self._handshakes: Handshakes | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to accept connections. uvicorn does not limit TLS handshakes, so TLS connections are accepted here.

        Raises:
            StartupError: another server has taken the port since it was bound.
        """
        if self.config.ssl is None or sockets is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            listen(sockets)
            self._handshakes = Handshakes(
                sockets, self._start_connection, seconds=self.tls_seconds, address=self._address_of
            )

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Accept the backlog, close the listeners, and drain."""
        accepted = [connection for listener in sockets or [] for connection in _accept_backlog(listener)]
        for server in self.servers:
            server.close()
        starts: list[Awaitable[None]] = [self._start_connection(connection) for connection in accepted]
        if self._handshakes is not None:
            self._handshakes.close()
            starts += self._handshakes.running
        started = asyncio.gather(*starts, return_exceptions=True)  # some may be closed
        with suppress(TimeoutError):
            await asyncio.wait_for(started, self.handshake_seconds)
        await super().shutdown(sockets)

    def _address_of(self, client: tuple[str, int]) -> str:
        return client_address(client, self.lifespan.state["server"].limits.trusted_proxies)

    async def _start_connection(self, connection: socket) -> None:
        """Attach uvicorn's protocol to an accepted connection."""
        config, state = self.config, self.lifespan.state
        protocol = config.http_protocol_class(config=config, server_state=self.server_state, app_state=state)  # type: ignore[call-arg]
        connection.setblocking(False)
        limits = {}
        if config.ssl is not None:
            limits = {"ssl_handshake_timeout": self.tls_seconds, "ssl_shutdown_timeout": _NO_LIMIT}
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: protocol, connection, ssl=config.ssl, **limits)


def _accept_backlog(listener: socket) -> list[socket]:
    """Accept every connection that waits in the backlog."""
    listener.setblocking(False)
    accepted = []
    with suppress(OSError):  # the backlog is empty
        while True:
            accepted.append(listener.accept()[0])
    return accepted
