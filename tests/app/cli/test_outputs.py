"""Where results go: files whole or not at all, folders, terminals and pipes."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.cli.outputs import Output
from app.errors import CommandError, UsageError
from tests.app.cli.conftest import BUNDLES, Call, shell, surroundings
from tests.conftest import load_npy, load_npz
from tests.processes import PATIENCE


def in_terminal(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and everything that a terminal of 60 columns shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=folder,
        env=surroundings(TERM="xterm-256color", COLUMNS="60", LINES="40", **environment) | {"NO_COLOR": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux tells the end of a terminal
            piece = b""
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(timeout=PATIENCE), shown.decode()


def test_a_terminal_is_drawn_in(folder: Path, url: str) -> None:
    status, shown = in_terminal(folder, "sample", "-n", "3", "--seed", "7", VAE_URL=url)
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert [len(line) for line in plain[:-1]] == [56] * 28  # two in a row, two rows, a character for two pixels
    assert plain[-1] == "drawn: 3 images of mnist 2, seed 7"
    assert "\x1b[38;5;" in shown


def test_a_progress_bar_is_shown_in_a_terminal_only(folder: Path, url: str) -> None:
    _, shown = in_terminal(folder, "encode", "digits", "-o", "l.npz", "--batch-size", "5", VAE_URL=url)
    assert "20/20" in shown
    assert "l.npz: 20 images by mnist 2" in shown
    piped = shell("vaeserve encode digits -o l.npz", folder, VAE_URL=url, TERM="xterm-256color")
    assert piped.stderr == b"l.npz: 20 images by mnist 2\n"


def test_bytes_do_not_go_to_a_terminal(folder: Path, url: str) -> None:
    status, shown = in_terminal(folder, "sample", "-o", "-", VAE_URL=url)
    assert status == 2
    assert shown.startswith("error: --output - would write bytes to the terminal")


def test_a_pipe_gets_plain_text(folder: Path, url: str) -> None:
    shown = shell("vaeserve models", folder, VAE_URL=url, TERM="xterm-256color", NO_COLOR="", COLUMNS="40")
    assert b"\x1b" not in shown.stdout
    header, *rows = shown.stdout.decode().splitlines()
    assert header.split() == [
        "model",
        "version",
        "default",
        "image",
        "latent",
        "likelihood",
        "NLL",
        "-ELBO",
        "state",
        "queued",
    ]
    assert len(rows) == len(BUNDLES)
    assert rows[1].split()[:3] == ["mnist", "2", "default"]


@pytest.mark.parametrize(
    ("form", "magic"), [("png", b"\x89PNG"), ("webp", b"RIFF"), ("gif", b"GIF8"), ("npy", b"\x93NUM")]
)
def test_stdout_in_any_form(folder: Path, url: str, form: str, magic: bytes) -> None:
    done = shell(f"vaeserve sample -n 2 --seed 1 -o - --format {form}", folder, VAE_URL=url)
    assert done.stdout.startswith(magic)
    assert done.stderr == b"-: 2 images of mnist 2, seed 1\n"


def test_arrays_come_with_what_made_them(call: Call, folder: Path) -> None:
    call("sample", "-n", 3, "--seed", 7, "-o", "s.npz")
    arrays = load_npz((folder / "s.npz").read_bytes())
    assert {name: array.shape for name, array in arrays.items()} == {
        "images": (3, 28, 28), "latents": (3, 32), "seed": (), "model": (), "version": ()
    }  # fmt: skip
    assert arrays["latents"].dtype == np.float32
    call("decode", "s.npz", "-o", "again.npy")
    np.testing.assert_array_equal(load_npy((folder / "again.npy").read_bytes()), arrays["images"])


def test_a_picture_of_drawn_latents_needs_no_draws_in_the_file(call: Call, folder: Path) -> None:
    np.save(folder / "l.npy", np.zeros((2, 32)))
    assert call("decode", "l.npy", "-o", "z.png") == (0, "", "z.png: 2 images of mnist 2\n")
    for name, array in (("flat", np.zeros(32)), ("none", np.zeros((0, 32))), ("text", np.array([["a"]]))):
        np.save(folder / f"{name}.npy", array)
        status, _, told = call("decode", f"{name}.npy", "-o", "z.png")
        assert (status, told.startswith(f"error: {name}.npy: not latent:1,2,3, nor an npy or npz file")) == (2, True)


def _damaged(folder: Path) -> bytes:
    np.savez_compressed(folder / "whole.npz", latents=np.arange(64, dtype=np.float32).reshape(2, 32))
    content = bytearray((folder / "whole.npz").read_bytes())
    content[len(content) // 3] ^= 0xFF
    return bytes(content)


def test_latents_that_are_damaged_or_no_floats_are_one_sentence(call: Call, folder: Path) -> None:
    (folder / "damaged.npz").write_bytes(_damaged(folder))
    arrays = {
        "structured": np.zeros((2, 32), [("a", "f4"), ("b", "i4")]),
        "complex": np.full((2, 32), 1 + 2j),
        "whole": np.zeros((2, 32), np.int64),
        "scalar": np.float32(1),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for name in ("damaged.npz", *(f"{name}.npy" for name in arrays)):
        status, text, told = call("decode", name, "-o", "z.png")
        assert (status, text) == (2, "")
        assert told.startswith(f"error: {name}: not latent:1,2,3, nor an npy or npz file with rows of floats")
        assert told.count("\n") == 1
    assert not (folder / "z.png").exists()


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (("reconstruct", "digits/", "-o", "digits/"), "00.png"),
        (("reconstruct", "digits/", "-o", "link"), "00.png"),
        (("reconstruct", "links/", "-o", "digits"), "00.png"),
        (("reconstruct", "digits/00.png", "scans/00.png", "0-00.png", "-o", "."), "2-0-00.png"),
        (("reconstruct", "digits/00.png", "-o", "digits/00.png"), "00.png"),
        (("interpolate", "digits/01.png", "label:3", "-o", "digits/01.png"), "01.png"),
        (("interpolate", "digits/01.png", "label:3", "--steps", 20, "-o", "digits"), "01.png"),
        (("decode", "latents.npz", "-o", "latents.npz"), "latents.npz"),
        (("decode", "0.png", "-o", "./"), "0.png"),
        (("encode", "digit.npz", "-o", "digit.npz"), "digit.npz"),
        (("score", "digit.npz", "-o", "digit.npz"), "digit.npz"),
    ],
    ids=str,
)
def test_what_is_read_is_not_overwritten(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...], taken: str
) -> None:
    (folder / "link").symlink_to("digits")
    (folder / "links").mkdir()
    (folder / "links" / "00.png").symlink_to("../digits/00.png")
    for name in ("digit.npz", "0-00.png", "2-0-00.png"):  # pictures, whatever they are called
        (folder / name).write_bytes((folder / "digit.png").read_bytes())
    np.savez(folder / "latents.npz", mean=np.zeros((1, 32), np.float32))
    (folder / "0.png").write_bytes((folder / "latents.npz").read_bytes())
    if taken == "2-0-00.png":  # what is written is numbered, and its place is taken by another name of what is read
        (folder / "2-0-00.png").unlink()
        (folder / "2-0-00.png").symlink_to("scans/00.png")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "models" not in path.parts}
    monkeypatch.setenv("VAE_URL", "http://127.0.0.1:9")  # nobody is asked
    status, text, told = call(*command)
    assert (status, text) == (2, "")
    assert told == f"error: --output {command[-1]} would overwrite {taken}, which is an input: name another output\n"
    assert {path: path.read_bytes() for path in before} == before


def test_beside_what_is_read_and_over_what_is_not_is_room(call: Call, folder: Path) -> None:
    (folder / "digit.jpg").write_bytes((folder / "digit.png").read_bytes())
    (folder / "digit.png").write_bytes(b"old")
    assert call("reconstruct", "digit.jpg", "-o", ".")[0] == 0
    assert (folder / "digit.png").read_bytes().startswith(b"\x89PNG")


def test_a_skipped_picture_renames_no_other(call: Call, folder: Path) -> None:
    (folder / "digits" / "00.png").write_bytes(b"nothing")
    assert call("reconstruct", "digits/00.png", "scans/00.png", "-o", "out")[0] == 1
    assert os.listdir(folder / "out") == ["1-00.png"]


def test_a_file_is_replaced_whole_and_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("there.png")
    Output.parse(str(tmp_path / "link.png"), ("png",), "png").write(b"new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there.png").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link.png", "there.png"]
    assert (tmp_path / "there.png").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    output = Output.parse(str(tmp_path / "gone" / ".." / "x.png"), ("png",), "png")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(CommandError, match=r"x\.png cannot be written: Is a directory"):
        output.write(b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CommandError, match="file cannot be created: File exists"):
        Output.parse(str(tmp_path / "file"), ("",), "png").fill({})


def test_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "null.png").symlink_to("/dev/null")
    Output("null.png", Path("/dev/null"), "png").write(b"something")
    assert Path("/dev/null").is_char_device()


def test_a_folder_keeps_what_else_lies_in_it(call: Call, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    call("sample", "-n", 2, "--seed", 1, "-o", "out")
    assert sorted(os.listdir(folder / "out")) == ["0.png", "1.png", "mine.txt"]


def test_an_unknown_form_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UsageError, match=r"--output takes \.png or a folder"):
        Output.parse("x.tiff", ("png", ""), "png")
