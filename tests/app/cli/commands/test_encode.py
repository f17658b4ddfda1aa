"""A folder of images: its order, what cannot be read, and an end before its time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.app.cli.conftest import Call, shell, surroundings
from tests.conftest import MODELS, Pixels, load_npz, png
from tests.processes import PATIENCE, until

BUNDLE = ("--bundle", MODELS / "mnist-2d" / "2")


def files(path: Path) -> list[str]:
    return [str(name) for name in load_npz(path.read_bytes())["files"]]


def test_folders_globs_and_files_in_order_and_once(call: Call, folder: Path) -> None:
    (folder / "digits" / "notes.txt").write_text("not a picture")
    (folder / "digits" / ".hidden.png").write_text("")
    assert call("encode", "digit.png", "digits/0[12].png", "digits/", "-o", "l.npz", *BUNDLE)[0] == 0
    assert files(folder / "l.npz")[:4] == ["digit.png", "digits/01.png", "digits/02.png", "digits/00.png"]
    assert len(files(folder / "l.npz")) == 21


def test_recursive_looks_deeper(call: Call, folder: Path) -> None:
    assert call("encode", ".", "-o", "l.npz", *BUNDLE)[0] == 0
    assert files(folder / "l.npz") == ["./digit.png"]
    shutil.rmtree(folder / "models")
    assert call("encode", ".", "-r", "-o", "l.npz", *BUNDLE)[0] == 0
    assert files(folder / "l.npz") == sorted(files(folder / "l.npz"), key=lambda name: (name.count("/"), name))
    assert len(files(folder / "l.npz")) == 24


def test_what_cannot_be_read_is_skipped_and_listed(call: Call, folder: Path, digits: Pixels) -> None:
    whole = call("encode", "digits", "-o", "whole.npz")
    assert whole[0] == 0
    (folder / "digits" / "05.png").write_bytes(b"nothing")
    (folder / "digits" / "06.png").write_bytes(png(digits[6])[:100])
    (folder / "digits" / "07.png").unlink()
    (folder / "digits" / "07.png").mkdir()
    (folder / "digits" / "08.png").unlink()
    (folder / "digits" / "08.png").symlink_to("nowhere")
    status, _, told = call("encode", "digits", "-o", "rest.npz", "--batch-size", 4, "--draw", "--seed", 1)
    assert status == 1
    assert told.splitlines() == [
        "rest.npz: 16 images by mnist 2",
        "error: 3 of 19 images were skipped:",
        "  digits/05.png: not a PNG, JPEG, WEBP or GIF image",
        "  digits/06.png: a damaged or truncated image",
        "  digits/08.png: No such file or directory",
    ]
    before, after = (load_npz((folder / name).read_bytes()) for name in ("whole.npz", "rest.npz"))
    kept = [list(before["files"]).index(name) for name in after["files"]]
    np.testing.assert_array_equal(after["mean"], before["mean"][kept])
    assert len(after["latents"]) == 16


def test_where_nothing_can_be_read_nothing_is_written(call: Call, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    status, text, told = call("encode", "bad.png", "-o", "l.npz", *BUNDLE)
    assert (status, text) == (1, "")
    assert told.startswith("error: 1 of 1 images were skipped:\n  bad.png: ")
    assert not (folder / "l.npz").exists()


def test_a_long_list_of_skipped_images_is_cut(call: Call, folder: Path) -> None:
    for index in range(30):
        (folder / "digits" / f"x{index}.png").write_bytes(b"")
    told = call("encode", "digits", "-o", "l.npz", *BUNDLE)[2]
    assert told.splitlines()[-1] == "  and 10 more"


def test_batches_do_not_show(call: Call, folder: Path) -> None:
    contents = set()
    for index, (size, concurrency) in enumerate([(64, 1), (3, 4), (7, 2), (1, 20)]):
        options = ("--draw", "--seed", 5, "--batch-size", size, "--concurrency", concurrency)
        assert call("encode", "digits", *options, "-o", f"{index}.npz")[0] == 0
        contents.add((folder / f"{index}.npz").read_bytes())
    (content,) = contents
    drawn = load_npz(content)
    eps = (drawn["latents"] - drawn["mean"]) / np.exp(drawn["log_std"])
    assert len(np.unique(eps.round(3), axis=0)) == 20


def test_a_seed_that_is_picked_is_told(call: Call) -> None:
    first = json.loads(call("encode", "digit.png", "--draw")[1])
    again = json.loads(call("encode", "digit.png", "--draw", "--seed", first["seed"])[1])
    assert first == again


def test_few_are_printed_and_many_want_a_file(call: Call, folder: Path, digits: Pixels) -> None:
    document = json.loads(call("encode", "digits")[1])
    assert (document["model"], document["version"], len(document["mean"])) == ("mnist", 2, 20)
    assert document["files"][0] == "digits/00.png"
    for index in range(50):
        (folder / "digits" / f"x{index}.png").write_bytes(png(digits[index]))
    status, text, told = call("encode", "digits")
    assert (status, text) == (2, "")
    assert told == "error: more than 64 images need a file: --output latents.npz\n"


def test_a_deterministic_encoder_has_no_draws(call: Call, folder: Path) -> None:
    told = call("encode", "digit.png", "--draw", "-m", "digits-ae")[2]
    assert told == "error: digits-ae's encoder is deterministic: there is no posterior to draw from\n"
    assert "log_std" not in json.loads(call("encode", "digit.png", "-m", "digits-ae")[1])


def test_stdin_and_stdout(folder: Path, url: str) -> None:
    piped = shell("vaeserve encode - < digit.png", folder, VAE_URL=url)
    named = shell("vaeserve encode digit.png", folder, VAE_URL=url)
    assert json.loads(piped.stdout)["mean"] == json.loads(named.stdout)["mean"]
    written = shell("vaeserve encode digit.png -o -", folder, VAE_URL=url)
    assert load_npz(written.stdout)["mean"].shape == (1, 32)
    assert shell("vaeserve models --json | head -c 1", folder, VAE_URL=url).stdout == b"{"


def encoded(url: str) -> float:
    """The requests to encode that a server has answered."""
    counts = re.findall(r'^vae_requests_total{operation="encode.* (\S+)$', httpx2.get(f"{url}/metrics").text, re.M)
    return sum(map(float, counts))


def test_ctrl_c_leaves_the_old_file_and_no_half_one(folder: Path, digits: Pixels, url: str) -> None:
    (folder / "many").mkdir()
    for index in range(5000):
        (folder / "many" / f"{index}.png").write_bytes(png(digits[index % 400]))
    (folder / "l.npz").write_bytes(b"old")
    command = [sys.executable, "-m", "app.cli", "encode", "many", "--batch-size", "1", "-o", "l.npz"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=surroundings(VAE_URL=url),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    before, answered = set(os.listdir(folder)), encoded(url)
    assert until(lambda: encoded(url) > answered)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, told) == (130, "interrupted\n")
    assert set(os.listdir(folder)) == before
    assert (folder / "l.npz").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "there is no nowhere"),
        (("scans/*.jpg",), "there is no scans/*.jpg"),
        (("empty",), "no images found: folders are searched for .png, .jpg"),
        (("digits", "-o", "l.npy"), "--output takes .npz"),
        (("digits", "-o", "digits"), "--output takes .npz"),
        (("digits", "-o", "nowhere/l.npz"), "--output: there is no folder "),
        (("digits", "--background", "nope", "-o", "l.npz"), "--background: not a color"),
        (("digits", "--batch-size", 0), "Invalid value for '--batch-size'"),
        ((), "Missing argument 'PATHS...'. See `vaeserve encode --help`."),
    ],
    ids=str,
)
def test_wrong_usage_is_one_sentence_and_status_2(
    call: Call, folder: Path, arguments: tuple[object, ...], told: str
) -> None:
    (folder / "empty").mkdir()
    status, text, said = call("encode", *arguments, *BUNDLE)
    assert (status, text) == (2, "")
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not (folder / "l.npz").exists()
