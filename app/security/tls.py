"""TLS: the server's certificate, which is taken anew when its file is."""

import logging
import os
import ssl
from pathlib import Path

from app.errors import StartupError

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key, in PEM files. Whoever renews them need not restart the server: connections that
    are made then get the new one."""

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        """`key` is None where the chain's file holds it, too.

        Raises:
            StartupError: they cannot be read, or do not belong together.
        """
        self._chain, self._key = chain, key
        self._written, self._newest = self._dates(), self._read()
        self.context = self._newest
        """What a server needs; each connection takes the certificate as it is then."""
        self.context.sni_callback = self._renew

    def _renew(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        dates = self._dates()
        if dates != self._written:
            self._written = dates
            try:
                self._newest = self._read()
                logger.info("VAE_TLS_CERTIFICATE has changed, and is used from now on")
            except StartupError as error:
                logger.error("the certificate stays as it was: %s", error)
        connection.context = self._newest

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password=lambda: "")  # else it would ask at the terminal
        except ssl.SSLError as error:
            reason = (
                "they do not belong together" if "MISMATCH" in str(error.reason) else "not PEM, or under a password"
            )
            raise StartupError(f"VAE_TLS_CERTIFICATE and VAE_TLS_KEY cannot be used: {reason}") from error
        except OSError as error:
            raise StartupError(f"VAE_TLS_CERTIFICATE or VAE_TLS_KEY cannot be read: {error.strerror}") from error
        return context

    def _dates(self) -> list[int]:
        """When the files were written; 0 of one that is gone."""
        return [_written(path) for path in (self._chain, self._key) if path is not None]


def server_context(chain: Path, key: Path | None, *_: object) -> ssl.SSLContext:
    """TLS as uvicorn asks for it, in the process that serves."""
    return Certificate(chain, key).context


def _written(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
