"""The forms of an operation: one record says what it computes, and each pair of a reader and a writer makes a route.

To add a format, add one row to the readers or to `WRITERS`, and one row to the `forms` of the operations that offer it.
"""

from collections.abc import Mapping
from dataclasses import replace

from app.api.forms.writers import MODEL_HEADERS, WRITERS, binary_response
from app.api.routing.operation import Operation, Reader

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
    writer.
    """
    has_seed = operation.answer is not None and "seed" in operation.answer.model_fields
    headers = MODEL_HEADERS | ({"X-Seed": ("The seed of the draws.", "integer")} if has_seed else {})
    records = []
    for suffix, (of_body, of_response) in forms.items():
        reader = readers[of_body] if readers and of_body else None
        writer, description = WRITERS[of_response], ""
        if suffix and "" in forms:
            words = [part.words for part in (reader, writer) if part is not None and part.words]
            description = f"As `{operation.path.removeprefix('/')}`, {', '.join(words)}."
        responses = binary_response(writer.description, writer.media_types, headers) if writer.media_types else {}
        path = operation.path + suffix
        records.append(
            replace(operation, path=path, reader=reader, writer=writer, description=description, responses=responses)
        )
    return tuple(records)
