"""The OpenAPI document as generated clients need it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import Problem


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
        app.openapi_schema = openapi
    return app.openapi_schema
