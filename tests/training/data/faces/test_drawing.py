"""The drawing of faces: by Node.js, in blocks, and with words where it cannot be done."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.faces.conftest import Fake
from training.data.faces.choices import COLORS, SHAPES
from training.data.faces.drawing import BLOCK, draw, install
from training.errors import DataError

WHITE = "#ffffff"
PLAIN = {name: shapes[0] for name, shapes in SHAPES.items()} | {name: palette[0] for name, palette in COLORS.items()}
FACES = {
    name: {**PLAIN, name: value}
    for name, values in (SHAPES | COLORS).items()
    for value in values
    if PLAIN[name] != value
}
"""By option, the plain face with another value of it."""


def test_every_option_shows(node_folder: Path) -> None:
    faces = [PLAIN, *({**PLAIN, name: value} for name, values in (SHAPES | COLORS).items() for value in values[1:])]
    images = draw([json.dumps(face) for face in faces], 64, WHITE, node_folder)
    assert len({image.tobytes() for image in images}) == len(faces)


def test_the_same_options_are_drawn_alike(node_folder: Path) -> None:
    first, second, _ = draw([json.dumps(face) for face in (PLAIN, PLAIN, FACES["mouth"])], 64, WHITE, node_folder)
    assert np.array_equal(first, second)


def test_colors_are_drawn_as_they_are_on_the_background_that_is_asked_for(node_folder: Path) -> None:
    face = {**PLAIN, "skin_color": "#f1c3a5", "clothes_color": "#0b3286"}
    image = draw([json.dumps(face)], 32, "#102030", node_folder)[0]
    assert image.shape == (32, 32, 3)
    assert image[0, 0].tolist() == [0x10, 0x20, 0x30]
    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert {(0xF1, 0xC3, 0xA5), (0x0B, 0x32, 0x86)} <= colors


def test_blocks_are_put_together_in_their_order(tmp_path: Path, drawn_by_fakes: Path) -> None:
    lines = [str(number) for number in range(2 * BLOCK + 3)]
    together = draw(lines, 2, WHITE, tmp_path / "node")
    assert np.array_equal(draw(lines[BLOCK + 5 : BLOCK + 9], 2, WHITE, tmp_path / "node"), together[BLOCK + 5 :][:4])
    assert drawn_by_fakes.read_text().count(f"node draw.mjs 2 {WHITE}\n") == 4


def test_packages_are_installed_once_and_again_where_others_are_locked(tmp_path: Path, drawn_by_fakes: Path) -> None:
    def installs() -> int:
        return drawn_by_fakes.read_text().count("npm ci --ignore-scripts")

    folder = tmp_path / "node"
    install(folder)
    install(folder)
    assert installs() == 1
    (folder / "installed.json").write_text("{}")
    install(folder)
    assert installs() == 2


@pytest.mark.parametrize("name", ["node", "npm"])
def test_without_node_it_says_what_to_install(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake(name, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match=r"faces are drawn with Node\.js: install node and npm"):
        draw(["{}"], 8, WHITE, tmp_path / "node")


@pytest.mark.usefixtures("drawn_by_fakes")
def test_npms_own_words_are_passed_on_and_it_is_asked_again(tmp_path: Path, fake: Fake) -> None:
    fake("npm", "echo 'no such package' >&2; exit 1")
    for _ in range(2):
        with pytest.raises(DataError, match=r"npm could not draw faces in .*: no such package"):
            install(tmp_path / "node")


@pytest.mark.usefixtures("drawn_by_fakes")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'SyntaxError' >&2; exit 1", "node could not draw faces in .*: SyntaxError"),
        ("printf abc", "3 bytes of 192"),
    ],
    ids=["fails", "too few bytes"],
)
def test_a_node_that_draws_nothing_is_an_error(tmp_path: Path, fake: Fake, script: str, message: str) -> None:
    fake("node", script)
    with pytest.raises(DataError, match=message):
        draw(["{}"], 8, WHITE, tmp_path / "node")
