"""The OpenAPI document: FastAPI's own, simplified for client generators, linters and readers."""

from collections.abc import Iterator
from functools import cache, partial
from operator import itemgetter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from app.api.middleware.access import OPEN
from app.api.openapi.schemas import (
    PREFIX,
    PUBLISHED_NAMES,
    name_constants,
    of_choices,
    of_request,
    of_response,
    plain,
    reachable,
    references,
)
from app.api.routing.operation import OperationRoute
from app.api.routing.problems import Problem, documented, kinds, response_of
from app.errors import RateExceeded, Unauthorized

Document = dict[str, Any]

_DESCRIPTION = (
    "Requests carry images as base64, as uploaded files or as npy arrays; responses carry latents, images and arrays."
    " Every operation on a model takes `model` and `version`; without them, the newest version of the default model"
    " is used. The same seed gives the same bytes. Every error is a problem document (RFC 9457). Every response has the"
    " header `X-Request-ID`, which is also in the server's log: the client's own id, if the request had one. On any"
    " path, a connection may receive 408 (the request took too long to arrive), 431 (request line and headers too"
    " large) or 503 (too many connections), without that header, and closed."
)

# The description of each tag. A tag without operations is left out of the document.
_TAGS = {
    "encode": "Images to posteriors.",
    "decode": "Latents to images.",
    "sample": "New images, from the prior or from the aggregated posterior.",
    "interpolate": "Paths through the latent space.",
    "reconstruct": "Images encoded and decoded.",
    "score": "How likely images are under a model.",
    "vary": "Images similar to a given one.",
    "combine": "Latent arithmetic.",
    "traverse": "Images along single latent dimensions.",
    "manifold": "The latent plane as an image.",
    "posteriors": "Posterior means of held-out images.",
    "remote": "The remote VAE protocol of the diffusers library.",
    "inference": "The Open Inference Protocol v2, with the binary tensor extension.",
    "models": "The served models.",
    "manage": "Loading and unloading models while the server runs; only available if an admin key is set.",
    "service": "The service itself, and its health.",
}

_KEY = {"type": "http", "scheme": "bearer", "description": "A key of the server, if the server requires one."}

_TIMES = {
    "X-Queue-Time": "Milliseconds that the request's rows waited for a slot.",
    "X-Inference-Time": "Milliseconds from taking the first row until the last row was done.",
    "X-Total-Time": "Milliseconds that the server took for the whole request.",
}
_FRESHNESS = {
    "ETag": "ETag of the response; absent if its draws have no seed.",
    "Cache-Control": "How long the response may be cached.",
}
_NOT_MODIFIED = {"description": "The client already has this response: its ETag was in If-None-Match."}
_SUCCESSES = ("200", "201", "202")
_STOCK = "Successful Response"


def install(app: FastAPI) -> None:
    """Make `app` serve its document at `/openapi.json`."""
    app.openapi = cache(partial(_write, app))  # type: ignore[method-assign]

    async def openapi(request: Request) -> JSONResponse:
        prefix = request.scope.get("root_path")
        return JSONResponse(app.openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))

    app.add_route("/openapi.json", openapi, include_in_schema=False)


def _write(app: FastAPI) -> Document:
    """The document of every route of `app`, without a path prefix."""
    openapi = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        license_info=app.license_info,
        servers=[{"url": "/"}],
        routes=app.routes,
    )
    routes = {
        (route.path_format, method.lower()): route
        for route in app.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    for (path, method), route in routes.items():
        _describe(openapi["paths"][path][method], route, openapi)
    _share(openapi)
    _simplify(openapi, routes)
    used = {tag for operation in _operations(openapi) for tag in operation.get("tags", ())}
    openapi["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    openapi["components"].setdefault("securitySchemes", {})["api_key"] = _KEY
    openapi["security"] = [{"api_key": []}, {}]  # the server's settings decide whether a key is required
    return openapi


def _operations(openapi: Document) -> Iterator[Document]:
    for methods in openapi["paths"].values():
        yield from methods.values()


def _describe(operation: Document, route: APIRoute, openapi: Document) -> None:
    """Add the parts of an operation that FastAPI does not write."""
    operation["summary"] = str(operation["operationId"]).replace("_", " ").capitalize()
    answers = operation["responses"]
    for status, answer in answers.items():
        if answer.get("description") == _STOCK and (names := list(references(answer))):
            schema = openapi["components"]["schemas"][names[0].removeprefix(PREFIX)]
            answer["description"] = schema.get("description", _STOCK)
        if "$ref" in answer:  # FastAPI adds its own description beside it
            answers[status] = {"$ref": answer["$ref"]}
    if isinstance(route, OperationRoute):
        headers = answers["200"].setdefault("headers", {})
        headers |= {name: {"description": text, "schema": {"type": "number"}} for name, text in _TIMES.items()}
        if route.methods == {"GET"}:
            headers |= {name: {"description": text, "schema": {"type": "string"}} for name, text in _FRESHNESS.items()}
            answers["304"] = _NOT_MODIFIED
    if route.path_format in OPEN:
        operation["security"] = []
    else:
        answers |= {str(status): answer for status, answer in documented(Unauthorized, RateExceeded).items()}
    if isinstance(route, OperationRoute):
        del operation["responses"]  # to stand after the parameters and the body
    operation["responses"] = dict(sorted(answers.items()))


def _share(openapi: Document) -> None:
    """Move problems, headers and inline objects under `components`, so that operations share them."""
    components = openapi.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template=PREFIX + "{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    used = set(references(openapi["paths"]))
    components["responses"] = {
        kind.__name__: response_of(kind) for kind in kinds() if f"#/components/responses/{kind.__name__}" in used
    }
    headers = components.setdefault("headers", {})
    for operation in _operations(openapi):
        for parameter in operation.get("parameters", ()):
            schemas.update(parameter["schema"].pop("$defs", {}))
        for media_type in operation.get("requestBody", {}).get("content", {}).values():
            schema = media_type.get("schema", {})
            if schema.get("type") == "object" and "title" in schema:
                schemas.update(schema.pop("$defs", {}))
                schemas[schema["title"]] = schema
                media_type["schema"] = {"$ref": PREFIX + schema["title"]}
        for answer in operation["responses"].values():
            for name, header in answer.get("headers", {}).items():
                if headers.setdefault(name, header) == header:
                    answer["headers"][name] = {"$ref": f"#/components/headers/{name}"}


def _simplify(openapi: Document, routes: dict[tuple[str, str], APIRoute]) -> None:
    """Simplify every schema of requests, responses and parameters."""
    schemas = openapi["components"]["schemas"]
    requested, nullables = set[str](), set[str]()
    for (path, method), route in routes.items():
        operation = openapi["paths"][path][method]
        requested |= reachable(operation.get("requestBody"), schemas)
        if not route.response_model_exclude_none:
            nullables |= reachable([operation["responses"].get(status) for status in _SUCCESSES], schemas)
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = plain(parameter["schema"], nullable=False)
            parameter["schema"].pop("description", None)  # the parameter has it
            if "$ref" in parameter["schema"] and "default" in parameter["schema"]:  # generators lose the type beside it
                parameter["description"] += f" `{parameter['schema'].pop('default')}` if absent."
    for name, schema in schemas.items():
        nullable = name in nullables
        simplified = of_request(schema) if name in requested else of_response(schema, nullable=nullable)
        title = {"title": PUBLISHED_NAMES.get(name, name)} | of_choices(schema)
        schemas[name] = title | plain(simplified, nullable=nullable)
    name_constants(schemas)
    openapi["components"]["schemas"] = {
        schema["title"]: schema for schema in sorted(schemas.values(), key=itemgetter("title"))
    }
