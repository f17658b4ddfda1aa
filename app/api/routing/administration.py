"""The check of every management route: an admin key, and a server with a single worker process."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from app.api.routing.state import Server
from app.errors import Conflict, Forbidden, Unauthorized

_BEARER = HTTPBearer(
    scheme_name="admin_key", description="VAE_ADMIN_KEY, or an admin key of VAE_KEYS_FILE.", auto_error=False
)


async def check_administration(request: Request, server: Server, _: Annotated[Any, Security(_BEARER)]) -> None:
    """Refuse a request without an admin key, and any request if this process is one of several workers.

    Raises:
        Unauthorized: the request has no valid key.
        Forbidden: its key is not an admin key.
        Conflict: a request reaches only one of several workers.
    """
    key = request.scope.get("vae.caller")
    if key is None:
        raise Unauthorized("send Authorization: Bearer with an admin key")
    if not key.is_admin:
        raise Forbidden("this key is no admin key")
    if server.workers > 1:
        raise Conflict("a request reaches only one of several workers: send SIGHUP to their supervisor instead")


# A dependency of the router, so that it is checked before the query or the body is read.
ADMINISTRATION = Depends(check_administration)
