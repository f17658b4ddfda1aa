"""uvicorn's server, which also serves the connections in the backlog when it stops."""

import asyncio
from contextlib import suppress
from socket import socket

import uvicorn

from app.server.connections import Connections


class DrainingServer(uvicorn.Server):
    """A server of one process; other processes may listen on the same sockets.

    Extends uvicorn, which closes its listeners at once: the kernel then resets every connection of the backlog, even if
    its request is already sent.
    """

    handshake_seconds = 1.0
    """Maximum seconds for the TLS handshakes of the backlog."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = Connections()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Accept the backlog, close the listeners, and drain."""
        accepted = [connection for listener in sockets or [] for connection in _accept_backlog(listener)]
        for server in self.servers:
            server.close()
        started = asyncio.gather(*map(self._start_connection, accepted), return_exceptions=True)  # some may be closed
        with suppress(TimeoutError):
            await asyncio.wait_for(started, self.handshake_seconds)
        await super().shutdown(sockets)

    async def _start_connection(self, connection: socket) -> None:
        """Attach uvicorn's protocol to an accepted connection."""
        config, state = self.config, self.lifespan.state
        protocol = config.http_protocol_class(config=config, server_state=self.server_state, app_state=state)  # type: ignore[call-arg]
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: protocol, connection, ssl=config.ssl)


def _accept_backlog(listener: socket) -> list[socket]:
    """Accept every connection that waits in the backlog."""
    listener.setblocking(False)
    accepted = []
    with suppress(OSError):  # the backlog is empty
        while True:
            accepted.append(listener.accept()[0])
    return accepted
