"""A running server and a bundle without one give the same bytes, and they are those of the HTTP API."""

import base64
import io
import json
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from app.cli.client import ServedVersion
from app.cli.files import ReadingOptions
from tests.app.cli.conftest import Call
from tests.conftest import DIGITS, MODELS, Pixels, load_npz, npy

BUNDLE = ("--bundle", MODELS / "mnist" / "2")
COMMANDS = [
    ("sample", "-n", 5, "--seed", 7, "-o", "{}.png"),
    ("sample", "-n", 5, "--seed", 7, "--columns", 2, "-o", "{}.webp"),
    ("sample", "-n", 5, "--seed", 7, "-o", "{}.gif"),
    ("sample", "-n", 5, "--seed", 7, "--temperature", 0.7, "--truncation", 2, "-o", "{}.npy"),
    ("sample", "-n", 5, "--seed", 7, "--source", "aggregate", "--label", 3, "-o", "{}.npz"),
    ("encode", "digits", "--draw", "--seed", 3, "--batch-size", 8, "-o", "{}.npz"),
    ("decode", "latents.npz", "latent:" + ",".join(["0.5"] * 32), "--batch-size", 8, "-o", "{}.npz"),
    ("reconstruct", "digits", "--mode", "draw", "--seed", 3, "-o", "{}.png"),
    ("reconstruct", "digits", "--mode", "predictive", "--seed", 3, "-o", "{}.npz"),
    ("interpolate", "digit.png", "label:3", "--steps", 4, "-o", "{}.gif"),
    ("score", "digits", "--seed", 3, "--k", 4, "--batch-size", 8, "-o", "{}.npz"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_with_and_without_a_server(call: Call, folder: Path, command: tuple[object, ...]) -> None:
    assert call("encode", "digits", "-o", "latents.npz")[0] == 0
    *arguments, output = command
    asked = call(*arguments, str(output).format("asked"))
    alone = call(*arguments, str(output).format("alone"), *BUNDLE)
    assert asked[0] == alone[0] == 0, (asked, alone)
    assert asked[2].replace("asked", "alone") == alone[2]
    assert (folder / str(output).format("asked")).read_bytes() == (folder / str(output).format("alone")).read_bytes()


@pytest.mark.parametrize("command", [("sample", "--seed", 1), ("models", "--json"), ("score", "digits", "--seed", 1)])
def test_what_is_printed_with_and_without_a_server(call: Call, command: tuple[object, ...]) -> None:
    asked, alone = call(*command), call(*command, "--bundle", "models")
    assert asked == alone
    assert asked[0] == 0


def test_a_folder_with_and_without_a_server(call: Call, folder: Path) -> None:
    call("sample", "-n", 11, "--seed", 7, "-o", "asked/")
    call("sample", "-n", 11, "--seed", 7, "-o", "alone", *BUNDLE)
    names = [f"{index:02}.png" for index in range(11)]
    assert sorted(path.name for path in (folder / "asked").iterdir()) == names
    assert all((folder / "asked" / name).read_bytes() == (folder / "alone" / name).read_bytes() for name in names)


def test_a_bundle_may_lie_anywhere(call: Call, folder: Path) -> None:
    (folder / "mine").symlink_to(MODELS / "mnist-2d" / "2")
    assert call("models", "--bundle", "mine")[1].splitlines()[1].split()[:3] == ["mnist-2d", "2", "default"]


def test_pictures_are_those_of_the_api(call: Call, folder: Path, api: httpx2.Client) -> None:
    query = {"n": 5, "seed": 7}
    call("sample", "-n", 5, "--seed", 7, "-o", "s.png")
    call("sample", "-n", 5, "--seed", 7, "-o", "s.npy")
    assert (folder / "s.png").read_bytes() == api.get("/sample/image", params=query).content
    assert (folder / "s.npy").read_bytes() == api.get("/sample/npy", params=query).content
    assert json.loads(call("sample", "-n", 5, "--seed", 7)[1]) == api.get("/sample", params=query).json()
    call("sample", "-n", 5, "--seed", 7, "-o", "one", "--columns", 1)
    first = (folder / "one" / "0.png").read_bytes()
    assert base64.b64decode(api.get("/sample", params=query).json()["images"][0]) == first


def test_a_point_is_that_of_the_api(call: Call, folder: Path, api: httpx2.Client) -> None:
    call("decode", "latent:0.5,-1.2", "-m", "mnist-2d", "-o", "point.png")
    query = {"model": "mnist-2d", "latent": [0.5, -1.2]}
    assert (folder / "point.png").read_bytes() == api.get("/decode/image", params=query).content


@pytest.mark.parametrize("form", ["png", "gif", "webp"])
def test_a_path_is_that_of_the_api(call: Call, folder: Path, api: httpx2.Client, form: str) -> None:
    status, _, told = call("interpolate", "digit.png", "label:3", "label:8", "--steps", 4, "-o", f"walk.{form}")
    assert (status, told) == (0, f"walk.{form}: 7 images of mnist 2\n")
    image = base64.b64encode((folder / "digit.png").read_bytes()).decode()
    body = {"points": [{"image": image}, {"label": 3}, {"label": 8}], "steps": 4}
    answer = api.post("/interpolate/image", params={"format": form}, json=body)
    assert (folder / f"walk.{form}").read_bytes() == answer.content


def test_latents_are_those_of_the_api(call: Call, folder: Path, api: httpx2.Client, digits: Pixels) -> None:
    call("encode", "digits", "--draw", "--seed", 3, "-o", "latents.npz", "--batch-size", 7)
    found = load_npz((folder / "latents.npz").read_bytes())
    query, headers = {"draw": True, "seed": 3}, {"Content-Type": "application/x-npy"}
    answer = load_npz(api.post("/encode/npy", params=query, content=npy(digits[:20]), headers=headers).content)
    for name in ("mean", "log_std", "latents"):
        np.testing.assert_array_equal(found[name], answer[name])
    files = [("images", (folder / name).read_bytes()) for name in found["files"]]
    read = api.post("/encode/files", files=files).json()
    np.testing.assert_allclose(read["mean"], found["mean"], rtol=DIGITS)
    assert (str(found["model"]), int(found["version"]), int(found["seed"])) == ("mnist", 2, 3)


@pytest.mark.parametrize("option", [("--invert",), ("--background", "#808080"), ("--strict",)])
def test_pictures_are_read_as_the_server_reads_them(
    call: Call, folder: Path, api: httpx2.Client, digits: Pixels, option: tuple[str, ...]
) -> None:
    name, *value = option
    rgba = np.dstack([digits[0]] * 4)
    Image.fromarray(rgba).save(folder / "clear.png")
    path = "clear.png" if "strict" not in name else "digit.png"
    status, text, _ = call("encode", path, *option)
    query = {name.removeprefix("--"): value[0] if value else "true"}
    answer = api.post("/encode/files", params=query, files=[("images", (folder / path).read_bytes())])
    assert status == 0
    assert json.loads(text)["mean"] == answer.json()["mean"]


def test_images_are_resized_as_the_model_says() -> None:
    image = {"height": 28, "width": 28, "mode": "L", "background": "#000000", "resampling": "nearest"}
    served = ServedVersion("a", 1, {"image": image, "latent": {"stride": None}})
    assert ReadingOptions().reading(served).resampling == "nearest"


def test_scores_are_those_of_the_api(call: Call, folder: Path, api: httpx2.Client, digits: Pixels) -> None:
    call("score", "digits", "--seed", 3, "-o", "scores.npz")
    found = load_npz((folder / "scores.npz").read_bytes())
    headers = {"Content-Type": "application/x-npy"}
    answer = load_npz(api.post("/score/npy", params={"seed": 3}, content=npy(digits[:20]), headers=headers).content)
    for name in answer:
        np.testing.assert_array_equal(found[name], answer[name])
    lines = call("score", "digits", "--seed", 3)[1].splitlines()
    assert lines[1].split()[:2] == ["digits/00.png", f"{answer['elbo'][0]:.2f}"]


def test_originals_stand_above_their_reconstructions(
    call: Call, folder: Path, api: httpx2.Client, digits: Pixels
) -> None:
    call("reconstruct", "digits", "--columns", 8, "-o", "pairs.png")
    grid = np.asarray(Image.open(io.BytesIO((folder / "pairs.png").read_bytes())))
    assert grid.shape == (6 * 28, 8 * 28)
    headers = {"Content-Type": "application/x-npy"}
    again = np.load(io.BytesIO(api.post("/reconstruct/npy", content=npy(digits[:20]), headers=headers).content))
    for index in range(20):
        row, column = divmod(index, 8)
        both = grid[56 * row : 56 * row + 56, 28 * column : 28 * column + 28]
        np.testing.assert_array_equal(both, np.concatenate([digits[index], again[index]]))
    assert not grid[-56:, 4 * 28 :].any()


def test_reconstructions_are_called_as_their_originals(call: Call, folder: Path) -> None:
    (folder / "digits" / "more").mkdir()
    (folder / "digits" / "more" / "00.png").write_bytes((folder / "digit.png").read_bytes())
    call("reconstruct", "digits", "-o", "flat/")
    assert sorted(p.name for p in (folder / "flat").iterdir()) == [f"{index:02}.png" for index in range(20)]
    call("reconstruct", "digits", "--recursive", "-o", "deep/")
    assert {"00-00.png", "20-00.png"} <= {p.name for p in (folder / "deep").iterdir()}
