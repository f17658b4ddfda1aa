"""Color emoji from two npm packages of images: the same emoji, drawn by two vendors."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from filelock import FileLock
from pydantic import Field

from app.codecs.images import Reading, Resampling, parse_color, read_images
from app.maths.arrays import Pixels
from training.data.dataset import LOCK, SIDE, DatasetOptions, Fraction, Split, is_within
from training.errors import DataError

SOURCE_SIZE = 64
"""Pixels per side of the packages' images."""
TIMEOUT_SECONDS = 600
"""Timeout of npm for one package."""


@dataclass(frozen=True)
class Package:
    """An npm package of emoji, and the sha512 of its tarball in base64, as in npm's lock files."""

    vendor: str
    name: str
    version: str
    sha512: str

    @property
    def file(self) -> str:
        """npm's name of the tarball."""
        return f"{self.name}-{self.version}.tgz"


PACKAGES = (
    Package(  # Noto Emoji, Apache-2.0
        "google",
        "emoji-datasource-google",
        "16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    ),
    Package(  # Twemoji, CC-BY-4.0
        "twitter",
        "emoji-datasource-twitter",
        "16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    ),
)

CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
"""Unicode's categories, which are the labels. Emoji in none of them (patches of skin tones) are left out."""


class EmojiOptions(DatasetOptions):
    """Noto Emoji and Twemoji, in every skin tone, on white. npm downloads them if they are missing.

    The labels are Unicode's categories. All images of an emoji, of all tones and both vendors, are in one split.
    """

    background: ClassVar = "#ffffff"
    resampling: ClassVar[Resampling] = "lanczos"
    dataset: Literal["emoji"]
    size: Annotated[int, Field(ge=8, le=64, multiple_of=SIDE)] = 64
    """Pixels per side."""
    test_fraction: Fraction = 0.1
    """Approximate fraction of the emoji in the test split. An emoji's split depends only on its code points."""


class Emoji(NamedTuple):
    """One emoji of a package."""

    digest: bytes
    """Hash of the code points without skin tone: all tones of an emoji have the same."""
    file: str
    label: int
    pixels: Pixels
    """`[3, size, size]`"""


def read(options: EmojiOptions, data_dir: Path, packages: Sequence[Package] = PACKAGES) -> tuple[Split, Split]:
    """Read the training and the test split, each in the order of hashes.

    npm downloads missing packages into `data_dir/emoji`.

    Raises:
        DataError: a package is missing and npm cannot fetch it, or it has another sha512.
    """
    folder = data_dir / options.dataset
    drawn = [emoji for package in packages for emoji in _read_package(fetch(folder, package), package, options)]
    drawn.sort(key=lambda emoji: (emoji.digest, emoji.file))
    splits: tuple[list[Emoji], list[Emoji]] = [], []
    for emoji in drawn:
        splits[is_within(emoji.digest, options.test_fraction)].append(emoji)
    return _split(splits[0]), _split(splits[1])


def fetch(folder: Path, package: Package) -> Path:
    """Return the path of the package's tarball in `folder`. If it is missing, one process downloads it with npm.

    Raises:
        DataError: npm cannot fetch it, or it has another sha512.
    """
    path = folder / package.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if not path.exists():
                _pack(folder, package)
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise DataError(f"{path} is not the expected file: it has another sha512")
    return path


def _pack(folder: Path, package: Package) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"{folder / package.file} is absent, and npm, which would fetch it, is not installed")
    part = folder / ".part"
    part.mkdir(exist_ok=True)
    command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    try:
        subprocess.run(command, cwd=part, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)  # noqa: S603
        (part / package.file).replace(folder / package.file)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise DataError(f"{folder / package.file} is absent, and npm could not fetch it: {said}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read_package(path: Path, package: Package, options: EmojiOptions) -> Iterator[Emoji]:
    reading = Reading(
        height=options.size,
        width=options.size,
        mode="RGB",
        max_pixels=SOURCE_SIZE**2,
        background=parse_color(options.background),
        resampling=options.resampling,
    )
    folder = f"package/img/{package.vendor}/{SOURCE_SIZE}/"
    with tarfile.open(path) as archive:
        images, listed = {}, b""
        for member in archive:
            content = archive.extractfile(member)
            if content is not None and member.name.startswith(folder):
                images[member.name.removeprefix(folder)] = content.read()
            elif content is not None and member.name == "package/emoji.json":
                listed = content.read()
    for entry in json.loads(listed):
        if entry["category"] in CATEGORIES:
            digest = hashlib.sha256(entry["unified"].encode()).digest()
            for drawn in (entry, *entry.get("skin_variations", {}).values()):
                if drawn[f"has_img_{package.vendor}"]:
                    pixels = read_images([images[drawn["image"]]], reading)[0].transpose(2, 0, 1)
                    yield Emoji(digest, drawn["image"], CATEGORIES.index(entry["category"]), pixels)


def _split(drawn: list[Emoji]) -> Split:
    return Split(np.stack([emoji.pixels for emoji in drawn]), np.array([emoji.label for emoji in drawn], np.uint8))
