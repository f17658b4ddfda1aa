"""The explorer's page and the files of every page, as browsers are to take them."""

from fastapi import Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

# By ourselves, because what the system's table says of `.js` decides whether a browser runs a module.
_MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Assets(StaticFiles):
    """Static files that a browser keeps and asks for again: an unchanged one costs a 304, a new release is seen."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        suffix = path[path.rfind(".") :]
        if suffix in _MEDIA_TYPES and response.status_code == 200:
            response.headers["Content-Type"] = _MEDIA_TYPES[suffix]
        return response


async def explorer(assets: Assets, request: Request) -> Response:
    """The explorer's page."""
    page = await assets.get_response("explorer/index.html", request.scope)
    page.headers.update({"Content-Security-Policy": _POLICY, "Vary": "Accept"})
    return page
