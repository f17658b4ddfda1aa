"""The static files of the pages."""

import mimetypes

from fastapi import Response
from starlette.datastructures import Headers
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.api.routing.negotiation import VARY, is_text

# The system's table of types may have others: browsers run a module only if `.js` has this type.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/css", ".css")
mimetypes.add_type("image/svg+xml", ".svg")


class Assets(StaticFiles):
    """Static files that browsers cache but revalidate, so that they notice a new release."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        if response.status_code == 304 and is_text(mimetypes.guess_type(path)[0] or "text/plain"):
            response.headers["Vary"] = VARY
        return response

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Whether the client has this version of a file, or with `*` wants none."""
        return request_headers.get("if-none-match", "").strip() == "*" or super().is_not_modified(
            response_headers, request_headers
        )
