"""`python -m app.healthcheck`: whether the server of this container is ready. Its exit status is 0 if it is, else 1.

Asks over loopback as `VAE_HOST`, `VAE_PORT` and `VAE_TLS_CERTIFICATE` say. Stdlib only and not even the settings: it is
started every few seconds, and importing them would take longer than the question.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

TIMEOUT = 4
"""Seconds that the server has to answer; less than the time that the container's check is given."""
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where a server that listens on every address is asked."""


def main() -> None:
    """Ask once; says why where the answer is no."""
    host = os.environ.get("VAE_HOST", "127.0.0.1")
    connection = _connection(_LOOPBACK.get(host, host), int(os.environ.get("VAE_PORT", "8000")))
    try:
        connection.request("GET", "/health/ready")  # without VAE_ROOT_PATH, which the proxy takes off
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.exit(f"no answer: {error}")
    if status != 200:
        sys.exit(f"not ready: status {status}")


def _connection(host: str, port: int) -> HTTPConnection:
    """A connection to be made; unlike urllib's, it asks no proxy that the environment names."""
    if not os.environ.get("VAE_TLS_CERTIFICATE"):
        return HTTPConnection(host, port, timeout=TIMEOUT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is of the public name, and who answers on loopback is known
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=context)


if __name__ == "__main__":
    main()
