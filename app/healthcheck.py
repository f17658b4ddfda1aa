"""`python -m app.healthcheck`: exit with status 0 if the server in this container is ready, else with 1.

Sends one request over loopback, to the address in `VAE_HOST` and `VAE_PORT`, with TLS if `VAE_TLS_CERTIFICATE` is set.
Imports the standard library only: it runs every few seconds, and importing the settings would take longer than the
request.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

TIMEOUT = 4
"""Maximum seconds to wait for the server; less than the timeout of the HEALTHCHECK in the Dockerfile."""
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""The loopback address to use for each `VAE_HOST` that means all addresses."""


def main() -> None:
    """Send the request; print the reason if the server is not ready."""
    host = os.environ.get("VAE_HOST", "127.0.0.1")
    connection = _connection(_LOOPBACK.get(host, host), int(os.environ.get("VAE_PORT", "8000")))
    try:
        connection.request("GET", "/health/ready")  # without VAE_ROOT_PATH, which the proxy strips
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.exit(f"no response: {error}")
    if status != 200:
        sys.exit(f"not ready: status {status}")


def _connection(host: str, port: int) -> HTTPConnection:
    """Return a connection, not yet open; unlike urllib, it ignores proxies in the environment."""
    if not os.environ.get("VAE_TLS_CERTIFICATE"):
        return HTTPConnection(host, port, timeout=TIMEOUT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate names the public host
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=context)


if __name__ == "__main__":
    main()
