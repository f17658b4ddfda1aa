"""`/encode` and its representations."""

import itertools
import json
import textwrap
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_manifest, write_manifest
from app.maths.gaussian import Posterior
from tests.conftest import DIGITS, Pixels, base64_png, load_npz, npy, png, pointers

NPY = {"Content-Type": "application/x-npy"}


def test_encode_answers_posteriors(client: TestClient, digits: Pixels) -> None:
    answer = client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:3]]})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"model", "version", "mean", "log_std"}
    assert body["model"] == "mnist"
    assert np.shape(body["mean"]) == np.shape(body["log_std"]) == (3, 32)


def test_every_representation_gives_the_same_numbers(client: TestClient, digits: Pixels) -> None:
    few, query = digits[:5], {"model": "mnist-2d", "draw": "true", "seed": "7"}
    by_json = client.post("/encode", params=query, json={"images": [base64_png(d) for d in few]}).json()
    files = [("images", (f"{i}.png", png(d), "image/png")) for i, d in enumerate(few)]
    by_files = client.post("/encode/files", params=query, files=files).json()
    assert by_files == by_json
    for array in (few, few[..., None], few / 255, (few / 255).astype(np.float32)):
        answer = client.post("/encode/npy", params=query, content=npy(array), headers=NPY)
        assert answer.headers["content-type"] == "application/x-npz"
        assert (answer.headers["x-model"], answer.headers["x-version"], answer.headers["x-seed"]) == (
            "mnist-2d",
            "2",
            "7",
        )
        arrays = load_npz(answer.content)
        for name in ("mean", "log_std", "latents"):
            assert arrays[name].dtype == np.float32
            np.testing.assert_allclose(by_json[name], arrays[name], rtol=DIGITS)


def test_floats_have_seven_significant_digits(client: TestClient, digits: Pixels) -> None:
    for count in (1, 32):  # written in two ways
        text = client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:count]]}).text
        mean = json.loads(text, parse_float=Decimal)["mean"]
        lengths = [len(number.as_tuple().digits) for row in mean for number in row if isinstance(number, Decimal)]
        assert max(lengths) == 7
        assert np.mean(np.array(lengths) == 7) > 0.8


def test_draws_are_the_posteriors_and_their_seed_is_answered(client: TestClient, digits: Pixels) -> None:
    images = {"images": [base64_png(digit) for digit in digits[:4]]}
    free = client.post("/encode", params={"draw": "true"}, json=images).json()
    again = client.post("/encode", params={"draw": "true", "seed": free["seed"]}, json=images).json()
    assert again == free
    posterior = Posterior(np.array(free["mean"], np.float32), np.array(free["log_std"], np.float32))
    np.testing.assert_allclose(free["latents"], posterior.draw(free["seed"]), atol=1e-6)


def test_a_deterministic_encoder_answers_means_alone(client: TestClient, digits: Pixels) -> None:
    images = {"images": [base64_png(digits[0])]}
    answer = client.post("/encode", params={"model": "digits-ae"}, json=images)
    assert set(answer.json()) == {"model", "version", "mean"}
    drawn = client.post("/encode", params={"model": "digits-ae", "draw": "true"}, json=images)
    assert pointers(drawn) == ["/query/draw"]
    arrays = client.post("/encode/npy", params={"model": "digits-ae"}, content=npy(digits[:2]), headers=NPY)
    assert set(load_npz(arrays.content)) == {"mean"}


def test_pictures_are_converted_to_the_models(client: TestClient, digits: Pixels) -> None:
    query, digit = {"model": "mnist-2d"}, digits[0]
    plain = client.post("/encode", params=query, json={"images": [base64_png(digit)]}).json()
    colour = base64_png(np.repeat(digit[..., None], 3, axis=2))
    assert client.post("/encode", params=query, json={"images": [colour]}).json() == plain
    data_url = f"data:image/png;base64,{base64_png(digit)}"
    assert client.post("/encode", params=query, json={"images": [data_url]}).json() == plain
    inverted = base64_png(255 - digit)
    assert client.post("/encode", params=query | {"invert": "true"}, json={"images": [inverted]}).json() == plain
    ink = np.dstack([np.zeros((28, 28, 3), np.uint8), digit])  # as a canvas has it: black ink on nothing
    drawn = client.post(
        "/encode", params=query | {"background": "#fff", "invert": "true"}, json={"images": [base64_png(ink)]}
    )
    assert drawn.json() == plain


def test_base64_as_other_encoders_write_it(client: TestClient, digits: Pixels) -> None:
    """Its forms are in tests/app/codecs/test_base64.py."""
    image = base64_png(digits[0])
    on_lines, url_safe = "\r\n".join(textwrap.wrap(image, 76)), image.translate(str.maketrans("+/", "-_")).rstrip("=")
    assert "-" in url_safe
    plain = client.post("/encode", json={"images": [image]}).json()
    path = client.post("/interpolate", json={"points": [{"image": image}, {"label": 3}]}).json()
    term = client.post("/combine", json={"terms": [{"image": image, "weight": 1}]}).json()
    for text in (on_lines, url_safe):
        assert client.post("/encode", json={"images": [text]}).json() == plain
        assert client.post("/interpolate", json={"points": [{"image": text}, {"label": 3}]}).json() == path
        assert client.post("/combine", json={"terms": [{"image": text, "weight": 1}]}).json() == term
    wrong = f"{image[:8]}!{image[9:]}"
    for path, body, pointer in (
        ("/encode", {"images": [image, wrong]}, "/images/1"),
        ("/interpolate", {"points": [{"label": 3}, {"image": wrong}]}, "/points/1/image"),
        ("/combine", {"terms": [{"image": wrong, "weight": 1}]}, "/terms/0/image"),
    ):
        (error,) = client.post(path, json=body).json()["errors"]
        assert error == {"pointer": pointer, "detail": "not base64 from character 9 on"}


def test_the_lines_of_a_large_image_are_not_too_many(client: TestClient) -> None:
    noise = base64_png(np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8))
    on_lines = "\r\n".join(noise[at : at + 76] for at in range(0, len(noise), 76))
    assert on_lines.count("\n") > 2**16
    plain = client.post("/encode", json={"images": [noise]})
    assert plain.status_code == 200
    assert client.post("/encode", json={"images": [on_lines]}).json() == plain.json()


def test_what_is_transparent_lies_on_the_models_own_background(client: TestClient) -> None:
    half = np.zeros((64, 64, 4), np.uint8)
    half[:32] = (200, 30, 60, 255)
    query, clear = {"model": "emoji"}, {"images": [base64_png(half)]}
    means = {}
    for background in ((255, 255, 255), (0, 0, 0)):
        solid = np.where(half[..., 3:] > 0, half[..., :3], np.array(background, np.uint8))
        means[background] = client.post("/encode", params=query, json={"images": [base64_png(solid)]}).json()
    assert client.post("/encode", params=query, json=clear).json() == means[255, 255, 255]
    assert client.post("/encode", params=query | {"background": "black"}, json=clear).json() == means[0, 0, 0]
    assert means[255, 255, 255] != means[0, 0, 0]


def test_images_are_resized_as_the_models_own_were(
    models_copy: Path, make_client: Callable[..., TestClient], digits: Pixels
) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    image = manifest.image.model_copy(update={"resampling": "nearest"})
    write_manifest(directory, manifest.model_copy(update={"image": image}))
    client, large = make_client(), np.kron(digits[0], np.eye(3, dtype=np.uint8))  # one pixel of nine is not black
    small = Image.fromarray(large).resize((28, 28), Image.Resampling.NEAREST)
    expected = client.post("/encode", json={"images": [base64_png(np.asarray(small))]}).json()
    assert client.post("/encode", json={"images": [base64_png(large)]}).json() == expected
    assert client.post("/encode/files", files=[("images", png(large))]).json() == expected
    assert client.get("/models/mnist-2d").json()["manifest"]["image"]["resampling"] == "nearest"


@pytest.mark.parametrize(
    ("images", "pointer"),
    [([], "/images"), (["@@@"], "/images/0"), ([""], "/images/0"), (["aGVsbG8="], "/images/0"), ([1], "/images/0")],
)
def test_what_are_no_pictures(client: TestClient, images: list[object], pointer: str) -> None:
    assert pointers(client.post("/encode", json={"images": images})) == [pointer]


def test_the_wrong_one_among_good_ones_is_named(client: TestClient, digits: Pixels) -> None:
    good = base64_png(digits[0])
    assert pointers(client.post("/encode", json={"images": [good, good, good[:200], good]})) == ["/images/2"]


def test_too_many_pictures(client: TestClient, digits: Pixels) -> None:
    many = [base64_png(digits[0])] * 257
    assert pointers(client.post("/encode", json={"images": many})) == ["/images"]
    files = [("images", ("x.png", png(digits[0]), "image/png"))] * 257
    assert pointers(client.post("/encode/files", files=files)) == ["/images"]
    assert pointers(client.post("/encode/npy", content=npy(np.zeros((257, 28, 28), np.uint8)), headers=NPY)) == [""]


def test_strict_refuses_what_would_be_converted(client: TestClient, digits: Pixels) -> None:
    large = base64_png(np.kron(digits[0], np.ones((2, 2), np.uint8)))
    assert client.post("/encode", json={"images": [large]}).status_code == 200
    assert pointers(client.post("/encode", params={"strict": "true"}, json={"images": [large]})) == ["/images/0"]


def test_forms_with_something_else(client: TestClient, digits: Pixels) -> None:
    good, text = ("images", ("x.png", png(digits[0]), "image/png")), ("images", (None, "text"))
    assert pointers(client.post("/encode/files", files=[good, text])) == ["/images/1"]
    assert pointers(client.post("/encode/files", files=[("images", ("x.png", b"x", "image/png"))])) == ["/images/0"]
    no_boundary = client.post("/encode/files", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert no_boundary.status_code == 400
    for name, content in (("image", good[1]), ("images[]", good[1]), ("model", (None, "mnist")), ("", good[1])):
        (error,) = client.post("/encode/files", files=[good, (name, content)]).json()["errors"]
        assert error["pointer"] == "/images"
        assert error["detail"].startswith("part 2 of the form has another name")


def form(*parts: bytes, head: bytes = b"", tail: bytes = b"\r\n") -> dict[str, Any]:
    """A request with a form of parts, each with its own header lines."""
    content = head + b"".join(b"--b\r\n%s\r\n" % part for part in parts) + b"--b--" + tail
    return {"content": content, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


@pytest.mark.parametrize(
    "header",
    [
        b'Content-Disposition: form-data; name="images"',
        b"content-disposition:form-data;name=images",
        b"Content-Disposition: form-data; name=\"images\"; filename*=UTF-8''%e2%82%ac.png",
        b'Content-Disposition: form-data; name="images"; filename=""\r\nContent-Type: application/octet-stream',
        b'Content-Disposition: form-data; filename="a;b\\".png"; name="images";',
    ],
)
@pytest.mark.parametrize(
    "head",
    [b"", b"\r\n", b"\n", b"This is a form.\r\n", b"--a -b\r\n--\r\n\r\n", b"-\n" * 499]
    + [b"--b%b\r\n" % longer for longer in (b"b", b"-", b"--b", b" b", b": x", b"\r", b" " * 99 + b"x")],
)
def test_forms_as_clients_write_them(client: TestClient, digits: Pixels, header: bytes, head: bytes) -> None:
    plain = client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:2]]}).json()
    parts = [header + b"\r\n\r\n" + png(digit) for digit in digits[:2]]
    for tail in (b"", b"\r\n", b"\r\nThe end.\r\n--b\r\n"):
        assert client.post("/encode/files", **form(*parts, head=head, tail=tail)).json() == plain
    whole = form(*parts, head=head)
    pieces = (whole["content"][at : at + 3] for at in range(0, len(whole["content"]), 3))
    assert client.post("/encode/files", content=pieces, headers=whole["headers"]).json() == plain


def test_forms_that_are_damaged(client: TestClient, digits: Pixels) -> None:
    part = b'Content-Disposition: form-data; name="images"\r\n\r\n' + png(digits[0])
    whole = form(part, head=b"a preamble\r\n")
    headers = whole["headers"]
    for content in (b"", whole["content"][:-10], b"\n-" * 2**16, b"--b", b"--b-", b"--b \r\n" + part):
        assert client.post("/encode/files", content=content, headers=headers).status_code == 400
    endless = (b"\n-" for _ in range(2**14))
    assert client.post("/encode/files", content=endless, headers=headers).status_code == 400
    for empty in (b"--b--", b"--b--\r\n", b"A form.\r\n--b--"):
        assert pointers(client.post("/encode/files", content=empty, headers=headers)) == ["/images"]
    for nameless in (b"Content-Disposition: form-data", b"Content-Type: image/png", b"Content-Disposition:"):
        (error,) = client.post("/encode/files", **form(part, nameless + b"\r\n\r\nx")).json()["errors"]
        assert error["detail"].startswith("part 2 of the form has another name")


BAD_ARRAYS = {
    "another size": np.zeros((1, 27, 28), np.uint8),
    "two dimensions": np.zeros((28, 28), np.uint8),
    "none": np.zeros((0, 28, 28), np.uint8),
    "integers": np.zeros((1, 28, 28), np.int64),
    "NaN": np.full((1, 28, 28), np.nan),
    "infinity": np.full((1, 28, 28), np.inf),
    "above one": np.full((1, 28, 28), 1.5),
    "below zero": np.full((1, 28, 28), -0.5),
    "colour": np.zeros((1, 28, 28, 3), np.uint8),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_arrays_that_are_no_images(client: TestClient, kind: str) -> None:
    assert pointers(client.post("/encode/npy", content=npy(BAD_ARRAYS[kind]), headers=NPY)) == [""]


def test_a_damaged_npy_is_unparseable(client: TestClient) -> None:
    answer = client.post("/encode/npy", content=npy(np.zeros((1, 28, 28)))[:-1], headers=NPY)
    assert answer.status_code == 400


def test_the_middle_of_a_wide_picture_is_kept_on_request(client: TestClient, digits: Pixels) -> None:
    wide = np.zeros((28, 84), np.uint8)
    wide[:, 28:56] = digits[0]
    cropped = client.post("/encode?fit=crop", json={"images": [base64_png(wide)]}).json()
    plain = client.post("/encode", json={"images": [base64_png(digits[0])]}).json()
    stretched = client.post("/encode", json={"images": [base64_png(wide)]}).json()
    assert cropped == plain != stretched


def test_huge_lists_are_refused_before_they_are_looked_at(client: TestClient) -> None:
    lists, numbers = b"[1]," * 2_000_000 + b"[1]", b"[" + b"1," * 5_000_000 + b"1]"
    for rows in (lists, numbers):
        began = time.process_time()
        content = b'{"latents": [' + rows + b"]}"
        answer = client.post("/decode", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["detail"]) == (413, "more values than any request can have")
        assert time.process_time() - began < 0.5  # it took some hundredths; parsed, it would be more than a second
    members = {f"{number:x}": 1 for number in range(2_200_000)}
    for count in (4096, 25_000, 2_200_000):
        content = json.dumps(dict(itertools.islice(members.items(), count)) | {"latents": []}).encode()
        began = time.process_time()
        answer = client.post("/decode", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["detail"]) == (413, "more values than any request can have")
        assert time.process_time() - began < 0.5  # every unknown member was an error of its own: 8 s and more
    urls = ["data:image/png;base64,"] * 5000
    assert pointers(client.post("/encode", json={"images": urls})) == ["/images"]
    many = {"latents": [[0.0] * 32] * 257}
    assert pointers(client.post("/decode", json=many)) == ["/latents"]
