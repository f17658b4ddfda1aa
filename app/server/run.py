"""uvicorn's server, but for its end: whoever has connected by then is let in and answered.

uvicorn closes its sockets as they are. Whoever has connected, but waits to be accepted, would be reset, perhaps with a
request on its way.
"""

import asyncio
from contextlib import suppress
from socket import socket

import uvicorn


class Server(uvicorn.Server):
    """A server in one process; others may listen on its sockets, too."""

    handshake_seconds = 1.0
    """Longest time that those who are let in last have to agree on TLS."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let in who waits at the door, close it, and answer everyone."""
        last = [connection for listening in sockets or [] for connection in _waiting(listening)]
        for server in self.servers:
            server.close()
        admitted = asyncio.gather(*map(self._admit, last), return_exceptions=True)  # some may be gone already
        with suppress(TimeoutError):
            await asyncio.wait_for(admitted, self.handshake_seconds)
        await super().shutdown(sockets)

    async def _admit(self, connection: socket) -> None:
        """Begin a connection as uvicorn does."""
        config, state = self.config, self.lifespan.state
        protocol = config.http_protocol_class(config=config, server_state=self.server_state, app_state=state)  # type: ignore[call-arg]
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: protocol, connection, ssl=config.ssl)


def _waiting(listening: socket) -> list[socket]:
    """The connections that wait to be accepted."""
    listening.setblocking(False)
    found = []
    with suppress(OSError):  # nobody waits any more
        while True:
            found.append(listening.accept()[0])
    return found
