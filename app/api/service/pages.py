"""The page of the explorer, and the static files of all pages."""

from fastapi import Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

# Not from the system's table of types: browsers run a module only if `.js` has this type.
_MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Assets(StaticFiles):
    """Static files that browsers cache but revalidate, so that they notice a new release."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        suffix = path[path.rfind(".") :]
        if suffix in _MEDIA_TYPES and response.status_code == 200:
            response.headers["Content-Type"] = _MEDIA_TYPES[suffix]
        return response


async def explorer(assets: Assets, request: Request) -> Response:
    """The page of the explorer."""
    page = await assets.get_response("explorer/index.html", request.scope)
    page.headers.update({"Content-Security-Policy": _POLICY, "Vary": "Accept"})
    return page
