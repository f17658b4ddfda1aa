"""Asking a server: refusals that pass, errors in words, servers that are not there."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.cli.client import MAX_RETRIES, ServerClient
from app.errors import CommandError
from tests.app.cli.conftest import Call
from tests.conftest import MODELS, free_port

Handler = Callable[[httpx2.Request], httpx2.Response]


def ask(handler: Handler, path: str = "models") -> dict[str, Any]:
    """What a server that answers so is understood to say."""

    async def run() -> dict[str, Any]:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler), base_url="http://there/vae") as http:
            return await ServerClient(http, "http://there/vae").json("GET", path, {"n": 1, "seed": None})

    return asyncio.run(run())


def problem(status: int, **members: Any) -> Handler:
    return lambda _: httpx2.Response(status, content=json.dumps({"title": "Wrong", **members}))


@pytest.mark.parametrize("status", [503, 429])
def test_a_full_server_is_asked_again(status: int) -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(status if len(seen) < 4 else 200, headers={"Retry-After": "0"}, json={"n": len(seen)})

    assert ask(answer) == {"n": 4}
    assert {str(request.url) for request in seen} == {"http://there/vae/models?n=1"}


def test_but_not_for_ever() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(503, headers={"Retry-After": "0"}, json={"title": "Overloaded"})

    with pytest.raises(CommandError, match=r"^Overloaded$"):
        ask(answer)
    assert len(seen) == MAX_RETRIES + 1


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (problem(400, detail="the body is not JSON"), "Wrong: the body is not JSON"),
        (problem(422, errors=[{"pointer": "/query/n", "detail": "too many"}]), "Wrong: n: too many"),
        (
            problem(422, errors=[{"pointer": "/points/1/image", "detail": "a"}, {"pointer": "", "detail": "b"}]),
            "Wrong: points, no. 2, image: a; b",
        ),
        (problem(401), "Wrong: give a key with --api-key or VAE_API_KEY"),
        (problem(404), "Wrong: is --url the server's address, and is the server as new as this command?"),
        (lambda _: httpx2.Response(502, text="<html>"), "http://there/vae answered 502, but not as vaeserve does"),
        (lambda _: httpx2.Response(200, text="<html>"), "http://there/vae answered 200, but not as vaeserve does"),
        (lambda _: httpx2.Response(200, json=[1]), "http://there/vae answered 200, but not as vaeserve does"),
    ],
)
def test_a_refusal_in_words(handler: Handler, words: str) -> None:
    with pytest.raises(CommandError) as caught:
        ask(handler)
    assert str(caught.value).startswith(words)


def test_a_model_that_is_not_understood() -> None:
    async def run() -> None:
        transport = httpx2.MockTransport(
            lambda _: httpx2.Response(200, json={"models": [{"name": "any", "version": 1}]})
        )
        async with httpx2.AsyncClient(transport=transport, base_url="http://there") as http:
            await ServerClient(http, "http://there").served("any", None)

    with pytest.raises(CommandError) as caught:
        asyncio.run(run())
    assert str(caught.value).startswith("http://there answered 200, but not as vaeserve does")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx2.ConnectError("x"), "no server answers at http://there/vae: start one with `vaeserve serve`"),
        (httpx2.ReadTimeout("x"), "the server at http://there/vae did not answer within 120 seconds"),
        (httpx2.RemoteProtocolError("x"), "the connection to http://there/vae broke"),
    ],
)
def test_a_server_that_goes_away(error: Exception, words: str) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise error

    with pytest.raises(CommandError) as caught:
        ask(answer)
    assert str(caught.value).startswith(words)


def test_the_key_travels_as_a_bearer_token(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    client = httpx2.AsyncClient

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx2.Response(200, json={"models": []})

    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(httpx2, "AsyncClient", lambda **options: client(**options, transport=transport))
    call("models")
    call("models", "--api-key", "secret")
    monkeypatch.setenv("VAE_API_KEY", "of-the-environment")
    call("models")
    assert seen == [None, "Bearer secret", "Bearer of-the-environment"]


@pytest.mark.parametrize("key", ["clé", "two words", "secret\n", "secret\r\nX-Other: 1", "\x7fsecret"])
@pytest.mark.parametrize("command", [("models",), ("models", "--bundle", MODELS), ("bench",)])
def test_a_key_that_no_header_can_carry_is_refused_and_not_told(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...], key: str
) -> None:
    monkeypatch.setenv("VAE_API_KEY", key)
    told = "error: the key of --api-key or VAE_API_KEY has other characters than visible ASCII, or a space\n"
    assert call(*command) == (2, "", told)


def test_a_directory_that_is_no_bundle_is_named_in_full_with_what_lies_below(call: Call, folder: Path) -> None:
    where = f"error: {folder}/digits holds no bundle: no <name>/<version>/manifest.json (VAE_MODELS_DIR)\n"
    assert call("models", "--bundle", "digits") == (1, "", where)
    (folder / "models" / "mnist" / "10").symlink_to(MODELS / "mnist" / "1")
    status, text, told = call("models", "--bundle", "models/mnist")
    assert (status, text) == (1, "")
    assert told == (
        f"error: {folder}/models/mnist holds no <name>/<version>/manifest.json, but versions of one model, 2, 10:"
        f" take {folder}/models/mnist/10\n"
    )


@pytest.mark.parametrize("command", [("models",), ("sample",), ("encode", "digit.png"), ("bench",)])
def test_where_there_is_no_server_one_learns_how_to_start_one(call: Call, command: tuple[str, ...]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    status, text, told = call(*command, "--url", address)
    assert (status, text) == (1, "")
    assert told.startswith(f"error: no server answers at {address}: start one with `vaeserve serve`")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:y", ""])
def test_what_is_no_address_is_wrong_usage(call: Call, address: str) -> None:
    assert call("models", "--url", address) == (2, "", "error: --url is an address such as http://127.0.0.1:8000\n")


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (("sample", "--label", 3), 1, "Invalid input: label: label needs source=aggregate"),
        (("sample", "-n", 1000), 1, "Invalid input: n: 1 to 256 are allowed, by the server's setting VAE_MAX_ROWS"),
        (("sample", "-m", "nope"), 1, "there is no model nope: `vaeserve models` lists them"),
        (("sample", "-m", "minst"), 1, "there is no model minst: did you mean mnist? `vaeserve models` lists them"),
        (("bench", "-m", "minst"), 1, "there is no model minst: did you mean mnist?"),
        (("sample", "-m", "../mnist"), 1, ""),
        (
            ("sample", "--version", 9),
            1,
            "there is no version 9 of mnist: `vaeserve models` lists them",
        ),
        (
            ("interpolate", "label:3", "label:77"),
            1,
            "Invalid input: points, no. 2, label: this model's labels are 0 to 9",
        ),
        (("interpolate", "label:3", "label:x"), 2, "a label is written label:3"),
        (("interpolate", "label:3"), 2, "a path needs two points or more"),
        (("interpolate", "label:3", "nope.png"), 2, "nope.png: No such file or directory; a point is an image"),
        (("interpolate", "latent:nan", "latent:1"), 2, "latent:nan: a latent is written latent:0.5,-1.2"),
        (("interpolate", "latent:a", "latent:1"), 2, "latent:a: a latent is written latent:0.5,-1.2"),
        (("decode", "latent:1,2"), 1, "Invalid input: latents must be [N, 32]"),
        (("decode", "latent:1,2", "latent:1"), 2, "the latents are not all of one shape"),
        (("decode", "digit.png"), 2, "digit.png: not latent:1,2,3, nor an npy or npz file"),
        (("models", "--bundle", "nope"), 2, "Invalid value for '--bundle'"),
        (("decode", "nope.npz"), 2, "there is no nope.npz: latents are latent:0.5,-1.2, or npy and npz files"),
        (("models", "--bundle", "models", "--url", "http://x"), 2, "--bundle works without a server, but --url names"),
        (("sample", "--url", "http://x", "--bundle", "models"), 2, "--bundle works without a server, but --url names"),
        (("sample", "-o", "x.jpg"), 2, "--output takes .png, .webp, .gif, .npy, .npz or a folder"),
        (("sampel",), 2, "No such command 'sampel'"),
        (("sample", "--sed", 1), 2, "No such option: --sed"),
    ],
    ids=str,
)
def test_errors_are_one_sentence(call: Call, command: tuple[object, ...], status: int, told: str) -> None:
    code, text, said = call(*command)
    assert (code, text) == (status, "")
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
