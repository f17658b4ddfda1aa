"""An operation, an image format and a body format are added: one record, or one row of a table, each."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from app.api.forms.bodies import BytesBody
from app.api.forms.images import images_of_array
from app.api.forms.readers import IMAGE_READERS
from app.api.forms.route import in_forms
from app.api.forms.writers import WRITERS, FormatQuery, ModelResponse, Result, model_headers
from app.api.operations import encode, sample
from app.api.operations.encode import EncodeQuery
from app.api.routing.operation import Operation, OperationRoute, Reader, Writer
from app.api.routing.queries import ModelQuery
from app.api.routing.response import RawResponse
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.main import create_app
from app.settings import Settings
from app.vae.vae import Vae
from tests.conftest import base64_png, pointers


class BrightnessQuery(ModelQuery):
    """How brightness is measured."""

    scale: float = Field(1.0, description="The brightness of white.")


class BrightnessResponse(ModelResponse):
    """Brightness of images."""

    brightness: list[float] = Field(description="Mean of each image.")


async def brightness(server: State, vae: Vae, query: BrightnessQuery, images: Pixels) -> Result:
    """The mean brightness of each image."""
    return Result(arrays={"brightness": images.mean(axis=(1, 2, 3)) / 255 * query.scale})


BRIGHTNESS = Operation(
    path="/brightness",
    query=BrightnessQuery,
    compute=brightness,
    reader=IMAGE_READERS["json"],
    writer=WRITERS["json"],
    answer=BrightnessResponse,
)


@pytest.fixture
def app(models_copy: Path) -> FastAPI:
    return create_app(Settings(models_dir=models_copy))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def add(app: FastAPI, *operations: Operation) -> None:
    """Add rows to the table of operations."""
    app.router.routes += map(OperationRoute, operations)


def test_an_operation(app: FastAPI, client: TestClient, digits: Pixels) -> None:
    add(app, BRIGHTNESS)
    answer = client.post("/brightness?scale=2&invert=true", json={"images": [base64_png(digits[0])]})
    assert answer.json()["brightness"] == pytest.approx([2 * (1 - digits[0].mean() / 255)], rel=1e-3)
    assert {"x-queue-time", "x-total-time"} <= set(answer.headers)
    assert pointers(client.post("/brightness?scale=x", json={})) == ["/query/scale"]
    assert client.get("/brightness").status_code == 405
    entry = app.openapi()["paths"]["/brightness"]["post"]
    assert (entry["operationId"], entry["description"]) == ("brightness", "The mean brightness of each image.")
    names = ["model", "version", "scale", "background", "invert", "fit", "strict"]
    assert [parameter["name"] for parameter in entry["parameters"]] == names
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/BrightnessResponse"}}}
    assert entry["responses"]["200"]["content"] == content
    assert "brightness" in app.openapi()["components"]["schemas"]["BrightnessResponse"]["properties"]


def test_an_image_format(monkeypatch: pytest.MonkeyPatch, app: FastAPI, client: TestClient) -> None:
    async def write(vae: Vae, query: FormatQuery, result: Result, _: Any) -> RawResponse:
        height, width = result.images["images"].shape[1:3]
        content = b"P5 %d %d 255\n" % (width, height) + result.images["images"][0].tobytes()
        return RawResponse.of(content, b"image/x-portable-graymap", model_headers(vae))

    row = Writer(write, None, "as a portable graymap", ("image/x-portable-graymap",), "The image.")
    monkeypatch.setitem(WRITERS, "pgm", row)
    (operation,) = (it for it in sample.OPERATIONS if it.path == "/sample")
    add(app, *in_forms(operation, {"/pgm": (None, "pgm")}))
    answer = client.get("/sample/pgm?seed=1")
    assert answer.content.startswith(b"P5 28 28 255\n")
    assert answer.headers["content-type"] == "image/x-portable-graymap"
    assert client.get("/sample/pgm?seed=1").content == answer.content  # from the cache
    entry = app.openapi()["paths"]["/sample/pgm"]["get"]
    assert list(entry["responses"]["200"]["content"]) == ["image/x-portable-graymap"]


def test_a_body_format(monkeypatch: pytest.MonkeyPatch, app: FastAPI, client: TestClient, digits: Pixels) -> None:
    def read(content: bytes) -> Pixels:
        return np.frombuffer(content, np.uint8).reshape(-1, 28, 28)

    row = Reader(BytesBody("application/x-raw", "uint8 [N, 28, 28].", read), images_of_array, None, "of raw bytes")
    monkeypatch.setitem(IMAGE_READERS, "raw", row)
    (operation,) = (it for it in encode.OPERATIONS if it.path == "/encode")
    add(app, *in_forms(operation, {"/raw": ("raw", "json")}, IMAGE_READERS))
    headers = {"Content-Type": "application/x-raw"}
    answer = client.post("/encode/raw", content=digits[:2].tobytes(), headers=headers)
    expected = client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:2]]})
    assert answer.json()["mean"] == expected.json()["mean"]
    assert client.post("/encode/raw", content=digits[:2].tobytes()).status_code == 415
    body = app.openapi()["paths"]["/encode/raw"]["post"]["requestBody"]
    assert list(body["content"]) == ["application/x-raw"]


class Nested(ModelQuery):
    inner: EncodeQuery = EncodeQuery()


class Mapped(ModelQuery):
    inner: dict[str, int] | None = None


@pytest.mark.parametrize("query", [Nested, Mapped])
def test_a_parameter_that_no_query_string_can_hold_is_refused_at_the_start(query: type[BaseModel]) -> None:
    with pytest.raises(TypeError, match="the parameter inner cannot be read from a query string"):
        OperationRoute(replace(BRIGHTNESS, query=query))


def test_a_parameter_of_two_names_or_none_is_refused_at_the_start() -> None:
    with pytest.raises(TypeError, match="two query models have a field background"):
        OperationRoute(replace(BRIGHTNESS, query=IMAGE_READERS["json"].query))
    with pytest.raises(TypeError, match="no query model has the path's parameter name"):
        OperationRoute(replace(BRIGHTNESS, path="/brightness/{name}"))


def test_a_query_is_never_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EncodeQuery().draw = True  # type: ignore[misc]
