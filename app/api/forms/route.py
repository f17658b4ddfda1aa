"""The forms of an operation: it says once what it computes, and each pair of a reader and a writer makes a route.

A format more is one row of `READERS` or of `WRITERS`, and one word in the `forms` of the operations that offer it.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, create_model

from app.api.forms.readers import READERS, Reader
from app.api.forms.writers import WRITERS, Answer, Result, Writer
from app.api.routing.operation import Least
from app.api.routing.problems import BODY_PROBLEMS, MODEL_PROBLEMS
from app.api.routing.queries import ModelQuery
from app.api.routing.state import RequestTiming, Server, State
from app.vae.vae import Vae

Compute = Callable[..., Awaitable[Result]]
"""From the server, the model that is asked, the query and, where there is a body, the input."""

_OF_IMAGES = {"": ("json", "json"), "/files": ("files", "json"), "/safetensors": ("safetensors", "safetensors")}
IMAGES_TO_ARRAYS = _OF_IMAGES | {"/npy": ("npy", "npz")}
IMAGES_TO_IMAGES = _OF_IMAGES | {"/npy": ("npy", "npy")}
"""The forms of operations on images, by what they answer."""


def offer(
    router: APIRouter,
    path: str,
    compute: Compute,
    *,
    query: type[ModelQuery],
    forms: Mapping[str, tuple[str | None, str]],
    reads: Literal["images", "latents"] | Reader | None = None,
    answer: type[Answer] | None = None,
    operation_id: str | None = None,
    least: Least | None = None,
) -> None:
    """Add a route for each of `forms`: what follows `path`, the reader's name, and the writer's.

    `reads` is the kind of input, or the one reader of it; None, and a reader of None, where nothing is read but the
    query. `answer` is the JSON answer. The first paragraph of `compute`'s docstring documents the operation.
    `least` is what a request runs at least, by its query: where there is no room for it, the body is not read.
    """
    base = operation_id or path.strip("/").replace("/", "_")
    for suffix, (how, form) in forms.items():
        reader = reads if isinstance(reads, Reader) else READERS[reads][how] if reads and how else None
        writer = WRITERS[form]
        name = base + suffix.replace("/", "_")
        router.add_api_route(
            path + suffix,
            _endpoint(compute, _mixed(name, query, reader, writer), reader, writer, answer, least),
            methods=["POST" if reader else "GET"],
            operation_id=name,
            name=name,
            description=_describe(base if suffix and "" in forms else "", compute, reader, writer),
            openapi_extra=reader.openapi if reader else None,
            responses=(BODY_PROBLEMS if reader else MODEL_PROBLEMS) | _documented(writer, answer),
            response_model=None if writer.media_types else answer,
            response_class=Response if writer.media_types else JSONResponse,
            response_model_exclude_none=True,
        )


def _mixed(name: str, query: type[ModelQuery], reader: Reader | None, writer: Writer) -> type[ModelQuery]:
    """The operation's own query parameters, then those of its reader and of its writer."""
    parts: list[Any] = [part.query for part in (writer, reader) if part is not None and part.query is not None]
    return create_model(f"{name}_query", __base__=(*parts, query)) if parts else query  # fields of the last base first


def _endpoint(
    compute: Compute,
    query: type[BaseModel],
    reader: Reader | None,
    writer: Writer,
    answer: type[Answer] | None,
    least: Least | None,
) -> Callable[..., Any]:
    """What FastAPI documents by its signature, and `Operation` calls."""

    async def endpoint(server: State, timing: RequestTiming, query: Any, body: Any = None) -> Answer | Response:
        vae: Vae = server.catalog.find(query.model, query.version).for_request(timing)
        inputs = () if reader is None else (await reader.read(server, vae, query, body),)
        return await writer.write(vae, query, await compute(server, vae, query, *inputs), answer)

    annotations = {"server": Server, "timing": RequestTiming, "query": Annotated[query, Query()]}
    annotations |= {"body": reader.body} if reader else {}
    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in annotations.items()]
    )
    endpoint.least = least  # type: ignore[attr-defined]
    return endpoint


def _describe(like: str, compute: Compute, reader: Reader | None, writer: Writer) -> str:
    """The operation's own words, or how this form differs from the one called `like`."""
    if not like:
        return (inspect.getdoc(compute) or "").partition("\n\n")[0]
    words = [part.words for part in (reader, writer) if part is not None and part.words]
    return f"As `{like}`, {', '.join(words)}."


def _documented(writer: Writer, answer: type[Answer] | None) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of an answer that is not JSON, each media type by name, with its headers."""
    if not writer.media_types:
        return {}
    headers = {"X-Model": ("The model that answered.", "string"), "X-Version": ("Its version.", "integer")}
    if answer is not None and "seed" in answer.model_fields:
        headers["X-Seed"] = ("The seed of the draws.", "integer")
    return {
        200: {
            "description": writer.description,
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in writer.media_types},
            "headers": {
                name: {"description": text, "schema": {"type": kind}} for name, (text, kind) in headers.items()
            },
        }
    }
