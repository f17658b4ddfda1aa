"""The OpenAPI document: what a linter would ask of it, and that it tells the truth."""

import base64
import json
import keyword
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from safetensors.numpy import save
from starlette.testclient import TestClient

from app.api.forms.images import EXAMPLE_IMAGE
from app.api.routing.problems import kinds, urn
from app.errors import InvalidInput, StartupError, UnknownModel, VaeError
from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS, ROOT, npy, pointers
from tests.document import Document, body_example, call, examples, operations, resolve

DOCUMENT: Document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
OPERATIONS = {operation.id: operation for operation in operations(DOCUMENT)}
SCHEMAS: Document = DOCUMENT["components"]["schemas"]

# What a schema may say: a misspelt or leaked keyword would be ignored by whoever reads it.
KEYWORDS = {
    *(
        "$ref",
        "type",
        "title",
        "description",
        "examples",
        "default",
        "format",
        "enum",
        "x-enum-varnames",
        "x-extensible-enum",
    ),
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    *("items", "minItems", "maxItems", "prefixItems", "uniqueItems", "anyOf", "oneOf", "discriminator"),
    *("minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


def parts(schema: Document) -> Iterator[Document]:
    """A schema and every schema in it; what it refers to is not."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *(schema.get(key) for key in ("items", "additionalProperties"))]
    inner += [part for key in ("anyOf", "oneOf", "allOf", "prefixItems") for part in schema.get(key, ())]
    for part in inner:
        if isinstance(part, dict):
            yield from parts(part)


def media_types(operation: Any) -> Iterator[tuple[str, Document]]:
    """Media types of an operation's body and of its successes."""
    yield from operation.body.items()
    for status, answer in operation.answers.items():
        if status < 300:
            yield from answer.get("content", {}).items()


def test_it_is_the_document_of_the_code() -> None:
    command = [sys.executable, ROOT / "scripts/openapi", "--check"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_it_says_what_it_is() -> None:
    info = DOCUMENT["info"]
    assert all(info[name] for name in ("title", "version", "summary", "description"))
    assert info["license"] == {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    assert DOCUMENT["servers"] == [{"url": "/"}]


def test_it_knows_the_path_prefix(models_copy: Any) -> None:
    with TestClient(create_app(Settings(models_dir=models_copy)), root_path="/vae") as client:
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/vae"}]


def test_tags_are_declared_described_and_used() -> None:
    declared = [tag["name"] for tag in DOCUMENT["tags"]]
    assert len(set(declared)) == len(declared)
    assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])
    assert set(declared) == {tag for operation in OPERATIONS.values() for tag in operation.raw["tags"]}


def test_operation_ids_are_unique() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert operation.raw["summary"]
    assert operation.raw["description"].strip().endswith(".")
    assert len(operation.raw["tags"]) == 1
    for parameter in operation.parameters:
        assert parameter.get("description"), parameter["name"]
        assert "anyOf" not in parameter["schema"], f"{parameter['name']}: absent, not null"
    in_path = {parameter["name"] for parameter in operation.parameters if parameter["in"] == "path"}
    assert in_path == set(re.findall("{([^}]*)}", operation.path))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    successes = [status for status in operation.answers if 200 <= status < 300]
    assert successes
    for status, answer in operation.answers.items():
        assert answer["description"] not in ("", "Successful Response"), status
        assert all(resolve(DOCUMENT, header)["description"] for header in answer.get("headers", {}).values())
    for status in successes:
        assert operation.answers[status]["content"], status


@pytest.mark.parametrize("name", OPERATIONS)
def test_bodies_are_named_schemas_or_binary(name: str) -> None:
    for media_type, content in media_types(OPERATIONS[name]):
        schema = content["schema"]
        if media_type in ("application/json", "multipart/form-data"):
            assert list(schema) == ["$ref"], media_type
        else:
            assert "*" not in media_type
            assert schema in ({"type": "string", "format": "binary"}, {"type": "string"}), media_type


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_status_is_documented(name: str) -> None:
    operation = OPERATIONS[name]
    expected = {404, 422, 500, 503, 504} if operation.is_of_a_model else set()
    if operation.body:
        any_type = operation.path.startswith("/v2/repository")  # its clients send none
        expected |= {400, 413, 422} if any_type else {400, 413, 415, 422}
    assert expected <= set(operation.answers)
    if operation.is_of_a_model and operation.method == "get":
        assert 304 in operation.answers


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_are_problems(name: str) -> None:
    for status, answer in OPERATIONS[name].answers.items():
        if status >= 400:
            assert list(answer["content"]) == ["application/problem+json"], status
            (content,) = answer["content"].values()
            schema = resolve(DOCUMENT, content["schema"])
            assert set(SCHEMAS["Problem"]["properties"]) <= set(schema["properties"]), status
            assert {example["status"] for example in examples(content)} == {status}
            for example in examples(content):
                validator(schema).validate(example)


def test_every_error_class_is_a_kind_of_problem() -> None:
    listed = SCHEMAS["Problem"]["properties"]["type"]["x-extensible-enum"]
    assert listed == [urn(error) for error in kinds()]
    assert len(set(listed)) == len(listed)
    assert {VaeError, UnknownModel, InvalidInput} <= set(kinds())
    assert not any(issubclass(error, StartupError) for error in kinds())


def test_what_is_shared_is_used() -> None:
    text = json.dumps(DOCUMENT)
    for kind, components in DOCUMENT["components"].items():
        if kind != "securitySchemes":
            for name in components:
                assert f'"#/components/{kind}/{name}"' in text, (kind, name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_plain(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["title"] == name
    assert "__" not in name, "two models of one name"
    assert schema["description"].strip().endswith(".")
    for part in parts(schema):
        assert set(part) <= KEYWORDS
        assert part is schema or "properties" not in part, "an object without a name"
        assert part is schema or "title" not in part
        if part.get("items", {}).get("format") == "binary":
            assert not {"minItems", "maxItems"} & set(part), "does not compile in Go"


def test_no_schema_is_named_like_something_else_in_a_client() -> None:
    languages = tomllib.loads((ROOT / "tests/data/reserved.toml").read_text())
    names = {name.lower() for name in SCHEMAS}
    assert not {name: taken for name, words in languages.items() if (taken := names & set(words.lower().split()))}
    assert set(map(str.lower, (*keyword.kwlist, *keyword.softkwlist))) - {"_"} <= set(
        languages["python"].lower().split()
    )


def test_a_choice_that_several_operations_offer_is_one_schema() -> None:
    for operation in OPERATIONS.values():
        for parameter in operation.parameters:
            assert "enum" not in parameter["schema"], (operation.id, parameter["name"])
    choices = [tuple(part["enum"]) for schema in SCHEMAS.values() for part in parts(schema) if "enum" in part]
    several = [choice for choice in choices if len(choice) > 1]
    assert len(set(several)) == len(several)
    assert SCHEMAS["Fit"]["enum"] == ["stretch", "crop"]
    assert SCHEMAS["ImageFormat"]["enum"] == ["png", "webp"]


def validator(schema: Document) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_fit_their_schemas(name: str) -> None:
    for part in parts(SCHEMAS[name]):
        for example in [*part.get("examples", ()), *([part["default"]] if "default" in part else [])]:
            validator(part).validate(example)


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_of_parameters_fit_their_schemas(name: str) -> None:
    for parameter in OPERATIONS[name].parameters:
        for example in examples(parameter):
            validator(parameter["schema"]).validate(example)
        if parameter["required"]:
            assert examples(parameter), f"{parameter['name']} is required, and has no example"


@pytest.fixture(scope="module")
def arrays(client: TestClient) -> dict[str, bytes]:
    """Bodies of which no document holds an example, as the examples' model takes them; arrays by what is in them."""
    manifest = client.get("/models/mnist-2d").json()["manifest"]
    image, latent = manifest["image"], manifest["latent"]["shape"]
    images, latents = np.zeros((1, image["height"], image["width"]), np.uint8), np.zeros((1, *latent), np.float32)
    return {
        "application/x-npy images": npy(images),
        "application/x-npy latents": npy(latents),
        "application/x-safetensors images": save({"images": images}),
        "application/x-safetensors latents": save({"latents": latents}),
        "tensor/binary": bytes(4 * latent[0]),
        "application/octet-stream": base64.b64decode(EXAMPLE_IMAGE),
    }


@pytest.fixture
def administered() -> Iterator[TestClient]:
    """A client of a server of its own, which it may tell to load and unload models."""
    app = create_app(Settings(models_dir=MODELS, admin_key="a-key-of-16-chars"))
    with TestClient(app, headers={"Authorization": "Bearer a-key-of-16-chars"}) as client:
        yield client


def with_null(schema: Document, body: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a JSON body in which one member or item that the schema names is null, and the pointer to it."""
    schema = resolve(DOCUMENT, schema)
    for name, part in schema.get("properties", {}).items():
        members = body or {}
        yield f"/{name}", members | {name: None}
        for pointer, changed in with_null(part, members.get(name)):
            yield f"/{name}{pointer}", members | {name: changed}
    if "items" in schema:
        yield "/0", [None]
        for pointer, changed in with_null(schema["items"], body[0] if body else None):
            yield f"/0{pointer}", [changed]
    for branch in schema.get("anyOf", ()):
        yield from with_null(branch, None)


JSON_BODIES = [name for name, operation in OPERATIONS.items() if "application/json" in operation.body]


@pytest.mark.parametrize("name", JSON_BODIES)
def test_null_is_refused_where_the_schema_does_not_allow_it(client: TestClient, request: Any, name: str) -> None:
    operation = OPERATIONS[name]
    if operation.raw.get("security"):
        client = request.getfixturevalue("administered")
    schema = operation.body["application/json"]["schema"]
    path = operation.path.format(**{it["name"]: examples(it)[0] for it in operation.parameters if it["in"] == "path"})
    bodies = [("", None), *with_null(schema, body_example(DOCUMENT, schema))]
    refused = [(pointer, body) for pointer, body in bodies if not validator(schema).is_valid(body)]
    assert len(refused) > 1
    for pointer, body in refused:
        content, headers = json.dumps(body), {"Content-Type": "application/json"}  # `json=None` would send no body
        answer = client.request(operation.method, path, content=content, headers=headers)
        assert pointer in pointers(answer), (pointer, body, answer.text)


_SOMETIMES = {"X-Seed", "ETag", "shape", "dtype", "Inference-Header-Content-Length"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_work(client: TestClient, arrays: dict[str, bytes], request: Any, name: str) -> None:
    if OPERATIONS[name].raw.get("security"):
        client = request.getfixturevalue("administered")
    operation = OPERATIONS[name]
    answer = call(client, DOCUMENT, operation, arrays)
    assert answer.status_code in operation.answers, answer.text
    assert answer.is_success, answer.text
    documented = operation.answers[answer.status_code]
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"]
    if media_type == "application/json":
        validator(resolve(DOCUMENT, documented["content"][media_type]["schema"])).validate(answer.json())
    assert set(documented.get("headers", {})) - _SOMETIMES <= {
        name for name in documented.get("headers", {}) if name.lower() in answer.headers
    }


def test_the_names_that_clients_rely_on() -> None:
    forms = {f"{name}{form}" for name in ("encode", "reconstruct", "score") for form in ("", "_files", "_npy")}
    pictures = {"decode", "decode_image", "decode_one_image", "decode_npy", "sample", "sample_image", "sample_npy"}
    others = {"interpolate", "interpolate_image", "manifold_image", "list_models", "get_model", "live", "ready"}
    assert forms | pictures | others <= set(OPERATIONS)
