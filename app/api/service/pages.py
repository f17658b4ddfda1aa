"""The page of the explorer, and the static files of all pages."""

import mimetypes

from fastapi import Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

# The system's table of types may have others: browsers run a module only if `.js` has this type.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/css", ".css")
mimetypes.add_type("image/svg+xml", ".svg")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Assets(StaticFiles):
    """Static files that browsers cache but revalidate, so that they notice a new release."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def explorer(assets: Assets, request: Request) -> Response:
    """The page of the explorer."""
    page = await assets.get_response("explorer/index.html", request.scope)
    page.headers.update({"Content-Security-Policy": _POLICY, "Vary": "Accept"})
    return page
