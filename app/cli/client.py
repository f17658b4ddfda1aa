"""The server that a command asks: a running one, or the application itself in this process, on a bundle."""

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
from urllib.parse import quote

import httpx2
import numpy as np
from numpy.typing import NDArray

from app.cli.words import in_words
from app.codecs.npy import NPY, write_npy
from app.errors import CommandError, UsageError

Query = dict[str, Any]

RETRIES = 8
LONGEST_WAIT = 10.0
"""Seconds before a refused request is sent again, whatever Retry-After says."""
_TIMEOUT = httpx2.Timeout(120, connect=5)


@dataclass(frozen=True)
class Served:
    """A version of a model, and its manifest."""

    name: str
    version: int
    manifest: dict[str, Any]

    @property
    def query(self) -> Query:
        """The parameters that name it: a run of many requests keeps to one version, whatever is loaded meanwhile."""
        return {"model": self.name, "version": self.version}

    @property
    def stochastic(self) -> bool:
        """Whether its encoder has a posterior."""
        return "log_std" in self.manifest["graphs"]["encoder"]["outputs"]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its images; None where any size will do."""
        image = self.manifest["image"]
        return (image["height"], image["width"]) if image["height"] and image["width"] else None

    @property
    def stride(self) -> int:
        """What sides of images are multiples of, where any size will do."""
        return self.manifest["latent"].get("stride") or 1


class Server:
    """Asks for one model, in one version; `where` is what messages call the server."""

    def __init__(
        self, http: httpx2.AsyncClient, where: str, model: str | None = None, version: int | None = None
    ) -> None:
        self._http, self._where, self._model, self._version = http, where, model, version
        self._served: Served | None = None

    async def send(self, method: str, path: str, query: Query | None = None, **body: Any) -> httpx2.Response:
        """The answer, which is no error; sent again, some times, where the server has no room for it.

        Raises:
            CommandError: there is no server, or it refuses; in words.
        """
        query = {name: value for name, value in (query or {}).items() if value is not None}
        for attempt in range(RETRIES + 1):
            try:
                response = await self._http.request(method, path, params=query, **body)
            except httpx2.TransportError as error:
                raise CommandError(self._unreachable(error)) from error
            if response.status_code not in (429, 503) or attempt == RETRIES:
                break
            await asyncio.sleep(_wait(response.headers.get("Retry-After", "")))
        if response.status_code != 200:
            raise CommandError(in_words(response.status_code, response.content, self._where))
        return response

    async def json(self, method: str, path: str, query: Query | None = None, **body: Any) -> dict[str, Any]:
        """The answer's JSON object.

        Raises:
            CommandError: as `send`, or it is none.
        """
        response = await self.send(method, path, query, **body)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise CommandError(in_words(response.status_code, response.content, self._where))
        return document

    async def arrays(self, path: str, array: NDArray[Any], query: Query) -> httpx2.Response:
        """The answer to an array; raises as `send`."""
        return await self.send("POST", path, query, content=write_npy(array), headers={"Content-Type": NPY})

    async def served(self) -> Served:
        """The model that is asked; raises CommandError where there is none such."""
        if self._served is None:
            name = _among(await self.json("GET", "models"), self._model)
            found = await self.json("GET", f"models/{quote(name, safe='')}", {"version": self._version})
            try:
                self._served = Served(found["name"], found["version"], found["manifest"])
            except KeyError:
                raise CommandError(in_words(200, b"", self._where)) from None
        return self._served

    def _unreachable(self, error: httpx2.TransportError) -> str:
        refused = _tls_error(error)
        if isinstance(refused, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self._where} is not trusted: {refused.verify_message}. Name the file of who"
                " signed it in SSL_CERT_FILE, and in --url the server as the certificate does"
            )
        if refused is not None:
            return f"there is no TLS with {self._where}: {refused.reason}. Should --url begin with http://?"
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return (
                f"no server answers at {self._where}: start one with `vaeserve serve`, name another with --url,"
                " or do without by --bundle"
            )
        if isinstance(error, httpx2.TimeoutException):
            return f"the server at {self._where} did not answer within {_TIMEOUT.read:g} seconds"
        return f"the connection to {self._where} broke: send the command again"


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """What TLS failed by, if it did: among the causes of an error of the client."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _among(listed: dict[str, Any], name: str | None) -> str:
    """The model of this name, the default one if None; raises CommandError where the list of `GET /models` lacks it."""
    if name is None:
        return str(listed.get("default", ""))
    known = {str(model.get("name")) for model in listed.get("models", ())}
    if known and name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        raise CommandError(f"there is no model {name}: {_did_you_mean(near)}`vaeserve models` lists them")
    return name


def _did_you_mean(near: list[str]) -> str:
    return f"did you mean {near[0]}? " if near else ""


def _wait(retry_after: str) -> float:
    """Seconds; Retry-After may be a date, too."""
    return min(float(retry_after), LONGEST_WAIT) if retry_after.isdecimal() else 1.0


def npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an answer."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


@asynccontextmanager
async def connect(
    url: str,
    bundle: Path | None = None,
    api_key: str | None = None,
    model: str | None = None,
    version: int | None = None,
) -> AsyncIterator[Server]:
    """A server: the one at `url`, or the application on `bundle`.

    Raises:
        UsageError: not a URL, or a key that no header can carry.
        StartupError: the bundle cannot be served.
    """
    headers = {"Authorization": f"Bearer {_checked_key(api_key)}"} if api_key else {}
    if bundle is not None:
        async with (
            _application(bundle) as transport,
            httpx2.AsyncClient(base_url="http://bundle", transport=transport, headers=headers) as http,
        ):
            yield Server(http, f"the bundle {bundle}", model, version)
        return
    async with httpx2.AsyncClient(base_url=checked(url), headers=headers, timeout=_TIMEOUT) as http:
        yield Server(http, url, model, version)


def _checked_key(key: str) -> str:
    """The key; raises UsageError, which does not tell it, where a header cannot carry it as it is."""
    if not re.fullmatch("[!-~]+", key):
        raise UsageError("the key of --api-key or VAE_API_KEY has other characters than visible ASCII, or a space")
    return key


def checked(url: str) -> httpx2.URL:
    """The URL of a server; raises UsageError where it is none."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("--url is an address such as http://127.0.0.1:8000")
    return parsed


@asynccontextmanager
async def _application(bundle: Path) -> AsyncIterator[httpx2.ASGITransport]:
    """The server's own code, without a socket: the same request gives the same bytes here and there."""
    from app.main import create_app
    from app.settings import read_settings

    alone = {"auth": "none", "api_key": None, "api_keys": None, "keys_file": None, "rate_limit": ""}
    app = create_app(read_settings(models_dir=bundle, workers=1, **alone))
    async with app.router.lifespan_context(app) as state:

        async def stateful(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | {"state": dict(state or {})}, receive, send)

        yield httpx2.ASGITransport(stateful, raise_app_exceptions=False)
