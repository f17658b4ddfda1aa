"""JSON Schemas from pydantic, reduced to the keywords that every client generator understands."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"
PUBLISHED_NAMES = {
    "Array": "BundleArray",
    "File": "BundleFile",
    "GraphFile": "Graph",
    "GraphFiles": "Graphs",
    "Image": "ModelImage",
}
"""Published names of schemas, by class name, if the two differ: no target language has a type of such a name."""

_NULL = {"type": "null"}


def plain(schema: Schema, *, nullable: bool) -> Schema:
    """The same schema in fewer keywords.

    Titles are left out, because generators would name types after them. `const` becomes an `enum` of one value, and
    integer bounds become inclusive integers. Unless `nullable`, null is left out: the member is absent instead.
    """
    schema = {key: value for key, value in schema.items() if key != "title"}
    if not nullable:
        schema = _without_null(schema)
    if (name := schema.get("$ref", "").removeprefix(PREFIX)) in PUBLISHED_NAMES:
        schema["$ref"] = PREFIX + PUBLISHED_NAMES[name]
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("type") == "integer":
        schema |= {bound: int(schema[bound]) for bound in ("minimum", "maximum") if bound in schema}
        if "exclusiveMinimum" in schema:
            schema["minimum"] = int(schema.pop("exclusiveMinimum")) + 1
    for key, value in schema.items():
        if key == "properties":
            schema[key] = {name: plain(part, nullable=nullable) for name, part in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            schema[key] = plain(value, nullable=nullable)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            schema[key] = [plain(part, nullable=nullable) for part in value]
    return schema


def of_response(schema: Schema, *, nullable: bool) -> Schema:
    """A schema of a response: members that cannot be null are required, and later versions may add members.

    If `nullable`, members are written even if they are null, so that all are required.
    """
    if "properties" not in schema:
        return schema
    members = {
        name: {key: value for key, value in part.items() if key != "default"}
        for name, part in schema["properties"].items()
    }
    already = schema.get("required", ())
    required = [name for name, part in members.items() if nullable or name in already or not _may_be_null(part)]
    open_ = {key: value for key, value in schema.items() if (key, value) != ("additionalProperties", False)}
    return open_ | {"properties": members} | ({"required": required} if required else {})


def of_request(schema: Schema) -> Schema:
    """A schema of a request: defaults are in the descriptions, because generators require members with a default."""
    members = {name: _with_default_in_description(part) for name, part in schema.get("properties", {}).items()}
    return schema | {"properties": members} if members else schema


def of_choices(schema: Schema) -> Schema:
    """The description of a schema that is a choice of values."""
    if "const" in schema:
        return {"description": f"Always `{schema['const']}`."}
    *first, last = [f"`{value}`" for value in schema.get("enum", ("",))]
    return {"description": f"One of {', '.join(first)} and {last}."} if first else {}


def name_constants(schemas: dict[str, Schema]) -> None:
    """Name the constants of choices that share a value: Go has one namespace for all of them."""
    counts = Counter(value for schema in schemas.values() for value in schema.get("enum", ()))
    for name, schema in schemas.items():
        if any(counts[value] > 1 for value in schema.get("enum", ())):
            prefix = re.sub("(?<=[a-z])(?=[A-Z])", "_", name)
            schema["x-enum-varnames"] = [f"{prefix}_{value}".upper() for value in schema["enum"]]


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a part of the document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def reachable(node: Any, schemas: dict[str, Schema]) -> set[str]:
    """Names of the schemas that a part of the document refers to, directly or through others."""
    found: set[str] = set()
    pending = [node]
    while pending:
        names = {ref.removeprefix(PREFIX) for ref in references(pending.pop()) if ref.startswith(PREFIX)} - found
        found |= names
        pending += [schemas[name] for name in names]
    return found


def _with_default_in_description(schema: Schema) -> Schema:
    if "default" not in schema:
        return schema
    words = f"{schema.get('description', '')} `{json.dumps(schema['default'])}` if absent.".strip()
    return {key: value for key, value in schema.items() if key != "default"} | {"description": words}


def _may_be_null(schema: Schema) -> bool:
    return _NULL in schema.get("anyOf", ())


def _without_null(schema: Schema) -> Schema:
    if not _may_be_null(schema):
        return schema
    rest = [kind for kind in schema["anyOf"] if kind != _NULL]
    outer = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    inner = {key: value for key, value in rest[0].items() if key != "title"} if len(rest) == 1 else {"anyOf": rest}
    return inner | outer
