"""MNIST and its kin: IDX files read, checked and, where absent, downloaded."""

import gzip
import hashlib
import math
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from training.data import dataset
from training.data.dataset import DataError, Split

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class IdxFile:
    """One gzipped IDX file: its name without `.gz`, and the sha256 of its decompressed bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class IdxSource:
    """A data set in four IDX files and the mirrors that serve them."""

    title: str
    mirrors: tuple[str, ...]
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile


SOURCES = {
    "mnist": IdxSource(
        title="MNIST",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        train_images=IdxFile(
            "train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        train_labels=IdxFile(
            "train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        test_images=IdxFile(
            "t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        test_labels=IdxFile(
            "t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    )
}


class Options(dataset.Options):
    """One of the data sets in SOURCES."""

    dataset: Literal["mnist", "fashion-mnist", "kmnist"] = "mnist"

    @property
    def key(self) -> str:
        """What the manifest calls it."""
        return self.dataset

    @property
    def title(self) -> str:
        """What the card calls it."""
        return SOURCES[self.dataset].title


def read(options: Options, data_dir: Path) -> tuple[Split, Split]:
    """The training and the test split in `data_dir/<dataset>`; what is absent is downloaded.

    Raises:
        DataError: a file cannot be had, is no gzipped IDX file, or has another content than it should.
    """
    source, folder = SOURCES[options.dataset], data_dir / options.dataset

    def split(images: IdxFile, labels: IdxFile) -> Split:
        pixels = read_idx(folder, images, source.mirrors)
        return Split(pixels[:, None], read_idx(folder, labels, source.mirrors))

    return split(source.train_images, source.train_labels), split(source.test_images, source.test_labels)


def read_idx(folder: Path, file: IdxFile, mirrors: tuple[str, ...]) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or plain, downloading it first where it is absent."""
    plain, packed = folder / file.name, folder / f"{file.name}.gz"
    if not plain.exists() and not packed.exists():
        _download(packed, mirrors)
    path = plain if plain.exists() else packed
    try:
        content = plain.read_bytes() if path is plain else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(f"{path} is not the expected file: its decompressed content has another sha256")
    return parse_idx(content)


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Array of an IDX file of unsigned bytes: 0, 0, 8, number of dimensions, sizes as big-endian uint32, data."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError("not an IDX file of unsigned bytes")
    dimensions = content[3]
    if dimensions > 64 or len(content) < 4 + 4 * dimensions:  # 64 is as far as numpy goes
        raise DataError("an IDX header that is cut short, or has more than 64 dimensions")
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    start = 4 + 4 * dimensions
    if len(content) - start != math.prod(sizes):
        raise DataError(f"an IDX header that promises {sizes} and {len(content) - start} bytes of data")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _download(target: Path, mirrors: tuple[str, ...]) -> None:
    """Fetch `target.name` from the first mirror that gives it; what an earlier try left in `.part` is kept."""
    failures = []
    for mirror in mirrors:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(mirror + target.name, target.with_name(target.name + ".part"))
        except (OSError, HTTPException) as error:
            failures.append(f"{mirror}: {error}")
        else:
            target.with_name(target.name + ".part").replace(target)
            return
    raise DataError(f"{target} is absent and could not be downloaded: {'; '.join(failures)}")


def _fetch(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (a constant)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as error:
        if error.code == 416 and have:  # nothing is left to fetch
            return
        raise
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with response, Progress(*columns) as progress:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        start = have if resumed else 0
        total = start + int(length) if length else None
        task = progress.add_task(part.stem, total=total, completed=start)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                progress.update(task, advance=len(chunk))
            if total is not None and file.tell() != total:
                raise URLError(f"the connection broke after {file.tell()} of {total} bytes")
