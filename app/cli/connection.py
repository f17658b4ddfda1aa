"""One kept connection to a server, as little Python as it takes: what a benchmark's client costs, the server lacks."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

from app.cli.client import checked
from app.errors import CommandError

Headers = dict[bytes, bytes]


@dataclass(frozen=True)
class Request:
    """A request, ready to be sent again and again."""

    host: str
    port: int
    tls: bool
    content: bytes

    @classmethod
    def of(
        cls, url: str, api_key: str | None, method: str, path: str, body: bytes = b"", media_type: str = ""
    ) -> "Request":
        """A request of `path` with its query, below the path of `url`; raises UsageError where that is no URL."""
        base = checked(url)
        tls = base.scheme == "https"
        lines = [f"{method} {base.path.rstrip('/')}{path} HTTP/1.1", f"Host: {base.netloc.decode()}"]
        lines += [f"Authorization: Bearer {api_key}"] if api_key else []
        lines += [f"Content-Type: {media_type}", f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([*lines, "", ""]).encode()
        return cls(base.host, base.port or (443 if tls else 80), tls, head + body)


class Connection:
    """Sends requests, one after the other; connects where it must."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self) -> tuple[int, Headers, bytes]:
        """Status, headers by their names in lower case, and body.

        Raises:
            CommandError: what answers is no HTTP that this client understands.
            OSError: there is no server, or it hung up.
        """
        if self._streams is None:
            context: Any = ssl.create_default_context() if self._request.tls else None
            self._streams = await asyncio.open_connection(self._request.host, self._request.port, ssl=context)
        reader, writer = self._streams
        writer.write(self._request.content)
        try:
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(int(headers[b"content-length"]))
        except asyncio.IncompleteReadError:
            raise ConnectionError("the server hung up") from None
        except (ValueError, KeyError, asyncio.LimitOverrunError):
            raise CommandError("what answers there is not vaeserve, or stands behind a proxy that chunks") from None
        if headers.get(b"connection") == b"close":
            self.close()
        return status, headers, body

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _head(content: bytes) -> tuple[int, Headers]:
    """Raises ValueError where that is not how an HTTP answer begins."""
    start, *lines = content[:-4].split(b"\r\n")
    headers = dict(line.split(b":", 1) for line in lines)
    return int(start.removeprefix(b"HTTP/1.1 ")[:3]), {name.lower(): value.strip() for name, value in headers.items()}
