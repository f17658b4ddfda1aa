"""The OpenAPI document as generated clients need it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.operation import Operation
from app.api.problems import Problem

_TIMES = {
    "X-Queue-Time": "Milliseconds that the request's rows waited for a slot.",
    "X-Inference-Time": "Milliseconds from then until the last of them was done.",
    "X-Total-Time": "Milliseconds that the server took for all of it.",
}
_NOT_MODIFIED = {"description": "The client has this answer: its ETag was in If-None-Match."}


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with one schema for every problem in place of FastAPI's own."""
    if app.openapi_schema is None:
        openapi = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            license_info=app.license_info,
            routes=app.routes,
        )
        schemas = openapi["components"]["schemas"]
        for stock in ("HTTPValidationError", "ValidationError"):
            schemas.pop(stock, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        for route in app.routes:
            if isinstance(route, Operation):
                for method in route.methods or ():
                    _describe(openapi["paths"][route.path][method.lower()], method)
        app.openapi_schema = openapi
    return app.openapi_schema


def _describe(operation: dict[str, Any], method: str) -> None:
    """Add what every operation on a model does."""
    headers = operation["responses"]["200"].setdefault("headers", {})
    headers |= {name: {"description": text, "schema": {"type": "number"}} for name, text in _TIMES.items()}
    if method == "GET":
        headers["ETag"] = {"description": "Of the answer, unless its draws have no seed.", "schema": {"type": "string"}}
        headers["Cache-Control"] = {"description": "How long it holds.", "schema": {"type": "string"}}
        operation["responses"]["304"] = _NOT_MODIFIED
