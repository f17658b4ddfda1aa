"""The forms of an operation: one record says what it computes, and each pair of a reader and a writer makes a route.

To add a format, add one row to the readers or to `WRITERS`, and one row to the `forms` of the operations that offer it.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace

from app.api.forms.writers import MODEL_HEADERS, WRITERS, binary_response
from app.api.routing.operation import Operation, Reader, Writer

_JSON_FILES_TENSORS = {
    "": ("json", "json"),
    "/files": ("files", "json"),
    "/safetensors": ("safetensors", "safetensors"),
}
IMAGES_TO_ARRAYS = _JSON_FILES_TENSORS | {"/npy": ("npy", "npz")}
IMAGES_TO_IMAGES = _JSON_FILES_TENSORS | {"/npy": ("npy", "npy")}
"""The forms of operations on images, by the kind of result."""


def in_forms(
    operation: Operation,
    forms: Mapping[str, tuple[str | None, str]],
    readers: Mapping[str, Reader] | None = None,
) -> tuple[Operation, ...]:
    """The records of `operation` in each of `forms`.

    A form is a suffix of the path, with the name of a reader (None if the request has no body) and the name of a
    writer. Its operation id is the id of `operation`, followed by the suffix.
    """
    return tuple(
        _in_form(
            operation,
            suffix,
            readers[reader] if readers and reader else None,
            WRITERS[writer],
            is_variant=suffix != "" and "" in forms,
        )
        for suffix, (reader, writer) in forms.items()
    )


def _in_form(
    operation: Operation, suffix: str, reader: Reader | None, writer: Writer, *, is_variant: bool
) -> Operation:
    if is_variant:
        words = [part.words for part in (reader, writer) if part is not None and part.words]
        description = f"As `{operation.operation_id}`, {', '.join(words)}."
    else:
        description = (inspect.getdoc(operation.compute) or "").partition("\n\n")[0]
    seeded = {"X-Seed": ("The seed of the draws.", "integer")}
    has_seed = operation.answer is not None and "seed" in operation.answer.model_fields
    headers = MODEL_HEADERS | (seeded if has_seed else {})
    return replace(
        operation,
        path=operation.path + suffix,
        operation_id=operation.operation_id + suffix.replace("/", "_"),
        reader=reader,
        writer=writer,
        description=description,
        responses=binary_response(writer.description, writer.media_types, headers) if writer.media_types else {},
    )
