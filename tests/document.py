"""The OpenAPI document as tests read it: its operations, and calls made of its examples."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from app.api.forms.images import EXAMPLE_IMAGE

Document = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation, with what it refers to in its place."""

    path: str
    method: str
    raw: Document
    parameters: list[Document]
    body: Mapping[str, Document]
    """By media type."""
    answers: Mapping[int, Document]

    @property
    def id(self) -> str:
        return str(self.raw["operationId"])

    @property
    def is_of_a_model(self) -> bool:
        return "X-Total-Time" in self.answers.get(200, {}).get("headers", {})


def resolve(document: Document, part: Document) -> Document:
    """A part of the document, or what it refers to."""
    while "$ref" in part:
        found: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def operations(document: Document) -> Iterator[Operation]:
    """Every operation."""
    for path, methods in document["paths"].items():
        for method, raw in methods.items():
            yield Operation(
                path,
                method,
                raw,
                [resolve(document, parameter) for parameter in raw.get("parameters", ())],
                resolve(document, raw.get("requestBody", {})).get("content", {}),
                {int(status): resolve(document, answer) for status, answer in raw["responses"].items()},
            )


def examples(part: Document) -> list[Any]:
    """The examples of a parameter, a media type or a schema, and of the schema that it has."""
    own = [part["example"]] if "example" in part else part.get("examples", [])
    listed = [example["value"] for example in own.values()] if isinstance(own, dict) else own
    return [*listed, *(examples(part["schema"]) if isinstance(part.get("schema"), dict) else ())]


def body_example(document: Document, schema: Document) -> Any:
    """A JSON body: the schema's example, or one made of its members' examples, all that are there."""
    schema = resolve(document, schema)
    if found := examples(schema):
        return found[0]
    if "properties" in schema:
        members = schema["properties"].items()
        pairs = {name: body_example(document, part) for name, part in members}
        return {name: value for name, value in pairs.items() if value is not None} or None
    if schema.get("type") == "array" and (item := body_example(document, schema["items"])) is not None:
        return [item]
    return None


def call(client: TestClient, document: Document, operation: Operation, arrays: Mapping[str, bytes]) -> Any:
    """Call an operation with every example that the document has of its parameters and its body.

    A file is the example picture; a binary body is one of `arrays`, by its media type or, of an array, by that and by
    what it is of.
    """
    given = {p["name"]: (p["in"], found[0]) for p in operation.parameters if (found := examples(p))}
    path = operation.path.format(**{name: value for name, (where, value) in given.items() if where == "path"})
    query = {name: value for name, (where, value) in given.items() if where == "query"}
    headers = {name: str(value) for name, (where, value) in given.items() if where == "header"}
    options: dict[str, Any] = {}
    for media_type, content in operation.body.items():
        if media_type == "application/json":
            options["json"] = body_example(document, content["schema"])
        elif media_type == "multipart/form-data":
            options["files"] = [("images", ("picture.png", base64.b64decode(EXAMPLE_IMAGE)))]
        else:
            text = operation.raw["requestBody"].get("description", "")
            of = "latents" if "latent" in text else "images"
            options["content"] = arrays.get(f"{media_type} {of}") or arrays[media_type]
            headers["Content-Type"] = media_type
    return client.request(operation.method, path, params=query, headers=headers, **options)
