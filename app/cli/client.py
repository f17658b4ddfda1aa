"""HTTP client of the commands: for a running server, or for the application in this process, on one bundle."""

import asyncio
import difflib
import io
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from app.cli import options
from app.cli.problems import problem_sentence
from app.codecs.npy import NPY, write_npy
from app.errors import CommandError, UsageError

Query = dict[str, Any]

MAX_RETRIES = 8
MAX_WAIT = 10.0
"""Maximum seconds before a refused request is sent again, even if Retry-After is longer."""
_TIMEOUT = httpx2.Timeout(120, connect=5)


@dataclass(frozen=True)
class ServedVersion:
    """A version of a model on the server, with its manifest."""

    name: str
    version: int
    manifest: dict[str, Any]

    @property
    def query(self) -> Query:
        """Query parameters that name this version, so that all requests of a command go to the same one."""
        return {"model": self.name, "version": self.version}


class ServerClient:
    """Sends requests to a server; `where` is its name in messages."""

    def __init__(self, http: httpx2.AsyncClient, where: str) -> None:
        self._http, self._where = http, where

    async def send(self, method: str, path: str, query: Query | None = None, **body: Any) -> httpx2.Response:
        """Return the response with status 200; a refused request is sent again, up to MAX_RETRIES times.

        Raises:
            CommandError: there is no response, or it is an error.
        """
        query = {name: value for name, value in (query or {}).items() if value is not None}
        for attempt in range(MAX_RETRIES + 1):
            try:
                response = await self._http.request(method, path, params=query, **body)
            except httpx2.TransportError as error:
                raise CommandError(self._unreachable(error)) from error
            if response.status_code not in (429, 503) or attempt == MAX_RETRIES:
                break
            seconds = response.headers.get("Retry-After", "")  # or a date, which this server never sends
            await asyncio.sleep(min(float(seconds), MAX_WAIT) if seconds.isdecimal() else 1.0)
        if response.status_code != 200:
            raise CommandError(problem_sentence(response.status_code, response.content, self._where))
        return response

    async def json(self, method: str, path: str, query: Query | None = None, **body: Any) -> dict[str, Any]:
        """The response's JSON object.

        Raises:
            CommandError: as `send`, or the response is not a JSON object.
        """
        response = await self.send(method, path, query, **body)
        try:
            return dict(response.json())
        except (ValueError, TypeError):
            raise CommandError(problem_sentence(response.status_code, response.content, self._where)) from None

    async def post_array(self, path: str, array: NDArray[Any], query: Query) -> Any:
        """The array, or the mapping of arrays, that responds to an array; raises as `send`."""
        response = await self.send("POST", path, query, content=write_npy(array), headers={"Content-Type": NPY})
        try:
            return np.load(io.BytesIO(response.content), allow_pickle=False)
        except (ValueError, EOFError, OSError):
            raise CommandError(problem_sentence(response.status_code, response.content, self._where)) from None

    async def served(self, name: str | None, version: int | None) -> ServedVersion:
        """A version of a model; the default model and the newest version for None.

        Raises:
            CommandError: the server has no such model or version.
        """
        listed = await self.json("GET", "models")
        try:
            served = [ServedVersion(model["name"], model["version"], model["manifest"]) for model in listed["models"]]
            name = name or str(listed["default"])
        except (KeyError, TypeError):
            raise CommandError(problem_sentence(200, b"", self._where)) from None
        versions = {it.version: it for it in served if it.name == name}
        if not versions:
            similar = difflib.get_close_matches(name, {it.name for it in served}, n=1)
            question = f"did you mean {similar[0]}? " if similar else ""
            raise CommandError(f"there is no model {name}: {question}`vaeserve models` lists them")
        if version is not None and version not in versions:
            raise CommandError(f"there is no version {version} of {name}: `vaeserve models` lists them")
        return versions[version or max(versions)]

    def _unreachable(self, error: httpx2.TransportError) -> str:
        tls_error = _tls_error(error)
        if isinstance(tls_error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self._where} is not trusted: {tls_error.verify_message}. Set SSL_CERT_FILE to the"
                " certificate of the authority that signed it, and in --url name the server as the certificate does"
            )
        if tls_error is not None:
            return f"there is no TLS with {self._where}: {tls_error.reason}. Should --url begin with http://?"
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return (
                f"no server answers at {self._where}: start one with `vaeserve serve`, name another with --url,"
                " or work without a server with --bundle"
            )
        if isinstance(error, httpx2.TimeoutException):
            return f"the server at {self._where} did not answer within {_TIMEOUT.read:g} seconds"
        return f"the connection to {self._where} broke: send the command again"


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error among the causes of a client error, if there is one."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


@dataclass(frozen=True, kw_only=True)
class ModelCommand(options.Command):
    """A command about one version of one model."""

    url: options.Url = options.DEFAULT_URL
    api_key: options.ApiKey = None
    bundle: options.Bundle = None
    model: options.Model = None
    version: options.Version = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[ServerClient, ServedVersion]]:
        """A client, and the version of the model that the options name; raises as `connect` and `served`."""
        async with connect(self.url, self.api_key, self.bundle) as server:
            yield server, await server.served(self.model, self.version)


@asynccontextmanager
async def connect(url: str, api_key: str | None = None, bundle: Path | None = None) -> AsyncIterator[ServerClient]:
    """A client of the server at `url`, or of the application on `bundle` if that is given.

    Raises:
        UsageError: `url` is not a URL, or the key has characters that a header cannot carry.
        StartupError: the bundle cannot be served.
    """
    if api_key and not re.fullmatch("[!-~]+", api_key):  # the message does not repeat the key: it is a secret
        raise UsageError("the key of --api-key or VAE_API_KEY has other characters than visible ASCII, or a space")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    if bundle is not None:
        async with (
            _application(bundle) as transport,
            httpx2.AsyncClient(base_url="http://bundle", transport=transport, headers=headers) as http,
        ):
            yield ServerClient(http, f"the bundle {bundle}")
        return
    async with httpx2.AsyncClient(base_url=_check_url(url), headers=headers, timeout=_TIMEOUT) as http:
        yield ServerClient(http, url)


def _check_url(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("--url is an address such as http://127.0.0.1:8000")
    return parsed


@asynccontextmanager
async def _application(bundle: Path) -> AsyncIterator[httpx2.ASGITransport]:
    """The application without a socket: the same request gives the same bytes here and on a server."""
    from app.main import create_app
    from app.settings import read_settings

    no_access_control = {"auth": "none", "api_key": None, "api_keys": None, "keys_file": None, "rate_limit": ""}
    app = create_app(read_settings(models_dir=bundle, workers=1, **no_access_control))
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:  # a server adds the lifespan's state
            await app(scope | {"state": dict(state or {})}, receive, send)

        yield httpx2.ASGITransport(with_state, raise_app_exceptions=False)
