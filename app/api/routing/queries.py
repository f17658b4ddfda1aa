"""Query parameters: the models that operations share, and the parser that fills an operation's query models."""

import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidInput

MAX_SEED = 2**31 - 1

_MAX_PARAMETERS = 4096
_MAX_ERRORS = 1000
"""Maximum validation errors that are listed one by one: listing more would block the event loop for seconds."""
_SCALARS = {"string", "integer", "number", "boolean", "null"}
"""JSON types of the values that a query string can hold."""
_CACHED_QUERIES = 1024
_MAX_CACHED_CHARACTERS = 256
"""Longer query strings are not cached, so that the cache is bounded in bytes, too."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
QueryFloat = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A JSON object or a set of query parameters: immutable, and without unknown members."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelQuery(Strict):
    """The model of a request."""

    model: str | None = Field(None, description="A model's name; the default model if absent.", examples=["mnist-2d"])
    version: int | None = Field(None, ge=1, description="A version of the model; the newest if absent.")


class PercentileQuery(Strict):
    """Whether the response has the percentiles of its latents."""

    percentile: bool = Field(
        False, description="Also return each latent's `latent_percentile`, 0 to 100: low is near the origin."
    )


class SeedQuery(ModelQuery):
    """The model of a request, and the seed of its draws."""

    seed: Seed | None = Field(
        None,
        description="The same seed gives the same bytes; if absent, the server picks a seed and returns it.",
    )

    def seed_or_new(self) -> int:
        """The seed of the request, or a random one."""
        return secrets.randbelow(MAX_SEED + 1) if self.seed is None else self.seed


def check_count(count: int, limit: int, pointer: str) -> None:
    """Check that there are 1 to `limit` items.

    Raises:
        InvalidInput: there are none, or too many.
    """
    if not 1 <= count <= limit:
        raise InvalidInput(f"1 to {limit} are allowed", pointer)


class ParsedQuery(NamedTuple):
    """The parsed query models of one request; None for a part that has no query model."""

    operation: Any
    reader: Any = None
    writer: Any = None


class QueryParser:
    """Parses a query string, and the parameters of a path, into the query models of one operation."""

    def __init__(self, *models: type[BaseModel] | None, in_path: frozenset[str] = frozenset()) -> None:
        """`models` are the query models of operation, reader and writer; fields in `in_path` come from the path.

        Raises:
            TypeError: a field has a type that cannot be read from a query string, or two fields have the same name.
        """
        self._models, self._in_path = models, in_path
        self._lists: dict[str, bool] = {}
        """For each query parameter, whether it is a list: a client repeats the parameter for each value."""
        for model in filter(None, models):
            described = model.model_json_schema()
            for name, schema in described["properties"].items():
                if name in self._lists:
                    raise TypeError(f"two query models have a field {name}")
                named = described.get("$defs", {})
                kinds = [named.get(kind.get("$ref", "").split("/")[-1], kind) for kind in schema.get("anyOf", [schema])]
                items = [kind["items"] for kind in kinds if "items" in kind]
                scalars = items + [kind for kind in kinds if "items" not in kind]
                if not {kind.get("type") for kind in scalars} <= _SCALARS:
                    raise TypeError(f"the parameter {name} cannot be read from a query string: its schema is {schema}")
                self._lists[name] = bool(items)
        if unknown := in_path - self._lists.keys():
            raise TypeError(f"no query model has the path's parameter {', '.join(unknown)}")
        for name in in_path:
            del self._lists[name]
        self._cached: Callable[[bytes], ParsedQuery] = lru_cache(_CACHED_QUERIES)(self._parse)

    def parse(self, text: bytes, path: Mapping[str, str]) -> ParsedQuery:
        """The query models for the query string `text` and the path's parameters `path`.

        Models are shared between requests. If the operation has no query parameters, `text` is ignored.

        Raises:
            InvalidInput: an unknown parameter, or one that is given twice.
            RequestValidationError: a value is missing or wrong.
        """
        if self._in_path:
            return self._parse(text, path)
        return self._cached(text) if len(text) <= _MAX_CACHED_CHARACTERS else self._parse(text)

    def _parse(self, text: bytes, path: Mapping[str, str] | None = None) -> ParsedQuery:
        values: dict[str, Any] = {**self._split(text), **(path or {})} if self._lists else dict(path or {})
        parsed: list[BaseModel | None] = []
        errors: list[Any] = []
        for model in self._models:
            if model is None:
                parsed.append(None)
                continue
            try:
                parsed.append(
                    model.model_validate({name: values[name] for name in model.model_fields if name in values})
                )
            except ValidationError as error:
                errors += listed(error)
        if errors:
            for it in errors:
                it["loc"] = ("path" if self._in_path.intersection(it["loc"][:1]) else "query", *it["loc"])
            raise RequestValidationError(errors)
        return ParsedQuery(*parsed)

    def _split(self, text: bytes) -> dict[str, str | list[str]]:
        """The values of a query string by name, lists for the parameters that are lists."""
        values: dict[str, Any] = {}
        try:
            pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        except ValueError:
            raise InvalidInput("too many parameters", "/query") from None
        for name, value in pairs:
            if name not in self._lists:  # it is the client's, and not repeated
                raise InvalidInput(f"an unknown parameter; there are {', '.join(self._lists)}", "/query")
            if self._lists[name]:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise InvalidInput("given more than once", f"/query/{name}")
            else:
                values[name] = value
        return values


def listed(error: ValidationError, *, include_input: bool = False) -> list[Any]:
    """The errors in pydantic's `error`; if there are too many, one error that says so."""
    if error.error_count() > _MAX_ERRORS:
        return [{"type": "many", "loc": (), "msg": "wrong in too many places"}]
    return list(error.errors(include_url=False, include_context=False, include_input=include_input))
