"""TLS: the server's certificate, read again when its files change."""

import logging
import ssl
from pathlib import Path

from app.errors import StartupError
from app.security.keys import file_versions

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its private key, in PEM files.

    Renewed files need no restart: each new connection gets the current certificate. While the files are broken, the
    last certificate stays in use.
    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        """`key` is None if the chain's file also holds the key.

        Raises:
            StartupError: the files cannot be read, or do not belong together.
        """
        self._chain, self._key = chain, key
        self._versions, self._current = file_versions(chain, key), self._read()
        self.context = self._current
        """The context for a server."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Give a new connection the current certificate; the ssl module calls this in each handshake."""
        if (versions := file_versions(self._chain, self._key)) != self._versions:
            self._versions = versions
            try:
                self._current = self._read()
                logger.info("VAE_TLS_CERTIFICATE has changed, and is used from now on")
            except StartupError as error:
                logger.error("the certificate stays as it was: %s", error)
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password=lambda: "")  # otherwise OpenSSL prompts for one
        except ssl.SSLError as error:
            mismatch = "MISMATCH" in str(error.reason)
            reason = "they do not belong together" if mismatch else "not PEM, or protected by a password"
            raise StartupError(f"VAE_TLS_CERTIFICATE and VAE_TLS_KEY cannot be used: {reason}") from error
        except OSError as error:
            raise StartupError(f"VAE_TLS_CERTIFICATE or VAE_TLS_KEY cannot be read: {error.strerror}") from error
        return context


def server_context(chain: Path, key: Path | None, *_: object) -> ssl.SSLContext:
    """Return the TLS context; uvicorn calls this in the process that serves."""
    return Certificate(chain, key).context
