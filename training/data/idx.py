"""MNIST and data sets of its format: IDX files, downloaded if they are missing, and verified."""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import httpx2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from training.data.dataset import BLACK, LOCK, DatasetOptions, Split
from training.errors import DataError

TIMEOUT_SECONDS = 30

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class IdxFile:
    """One gzipped IDX file: its name without `.gz`, and its sha256."""

    name: str
    sha256: str
    """Hash of the decompressed file; of the `.gz` file if `packed`."""
    packed: bool = False
    """Whether only the hash of the `.gz` file is published. Then the decompressed file alone cannot be verified."""


@dataclass(frozen=True)
class IdxSource:
    """A data set of four IDX files, and the URLs of its mirrors."""

    mirrors: tuple[str, ...]
    files: tuple[IdxFile, ...]
    """Training images, training labels, test images, test labels."""


def _source(*mirrors: str, sha256: tuple[str, ...], packed: bool = False) -> IdxSource:
    """A data set of four files with the usual names; `sha256` is in the order of NAMES."""
    return IdxSource(mirrors, tuple(IdxFile(*named, packed) for named in zip(NAMES, sha256, strict=True)))


SOURCES = {
    "mnist": _source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    # The hashes of the packed files are those of tensorflow_datasets.
    "fashion-mnist": _source(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        sha256=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        packed=True,
    ),
    "kmnist": _source(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        sha256=(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        packed=True,
    ),
}


class IdxOptions(DatasetOptions):
    """A data set of four IDX files, which are downloaded if they are missing."""

    background: ClassVar = BLACK
    resampling: ClassVar = "lanczos"
    dataset: Literal["mnist", "fashion-mnist", "kmnist"] = "mnist"


def read(options: IdxOptions, data_dir: Path) -> tuple[Split, Split]:
    """Read the training and the test split in `data_dir/<dataset>`; missing files are downloaded.

    Raises:
        DataError: a file cannot be downloaded, is not a gzipped IDX file, or has another hash.
    """
    source, folder = SOURCES[options.dataset], data_dir / options.dataset
    train, train_labels, test, test_labels = (read_idx(folder, file, source.mirrors) for file in source.files)
    return Split(train[:, None], train_labels), Split(test[:, None], test_labels)


def read_idx(folder: Path, file: IdxFile, mirrors: tuple[str, ...]) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or plain; if both are missing, download the gzipped one.

    If only the gzipped file can be verified, that one is read. A plain file without it is an error: these data sets
    have files of the same names and shapes, so only hashes can tell them apart.

    Raises:
        DataError: see `read`.
    """
    plain, packed = folder / file.name, folder / f"{file.name}.gz"
    if file.packed and plain.exists() and not packed.exists():
        advice = f"put {packed.name} beside it, or remove it to have that downloaded"
        raise DataError(f"{plain} cannot be checked, as only the sha256 of its .gz is known: {advice}")
    path = plain if plain.exists() and not file.packed else packed
    if not path.exists():
        _download(packed, mirrors)
    try:
        stored = path.read_bytes()
        content = stored if path is plain else gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    checked, what = (stored, "it") if file.packed else (content, "its decompressed content")
    if hashlib.sha256(checked).hexdigest() != file.sha256:
        raise DataError(f"{path} is not the expected file: {what} has another sha256")
    return parse_idx(content)


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes: 0, 0, 8, number of dimensions, sizes as big-endian uint32, data.

    Raises:
        DataError: the content is not such a file.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError("not an IDX file of unsigned bytes")
    dimensions = content[3]
    if dimensions > 64 or len(content) < 4 + 4 * dimensions:  # 64: numpy's limit
        raise DataError("an IDX header that is cut short, or has more than 64 dimensions")
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    start = 4 + 4 * dimensions
    if len(content) - start != math.prod(sizes):
        raise DataError(f"an IDX header of shape {sizes}, but {len(content) - start} bytes of data")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _download(target: Path, mirrors: tuple[str, ...]) -> None:
    """Download `target.name`. If there are several processes, one downloads and the others wait."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / LOCK):
            if not target.exists():
                _download_from_any(target, mirrors)
    except OSError as error:
        raise DataError(f"{target} is absent and could not be downloaded: {error}") from error


def _download_from_any(target: Path, mirrors: tuple[str, ...]) -> None:
    """Download from the first mirror that works, continuing a partial download in `.part`."""
    failures = []
    for mirror in mirrors:
        try:
            _fetch(mirror + target.name, target.with_name(target.name + ".part"))
        except (OSError, httpx2.HTTPError, ValueError, ImportError) as error:  # the last two: proxies it cannot use
            failures.append(f"{mirror}: {str(error).partition(chr(10))[0]}")
        else:
            target.with_name(target.name + ".part").replace(target)
            return
    raise DataError(f"{target} is absent and could not be downloaded: {'; '.join(failures)}")


def _fetch(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True) as response:
        if response.status_code == 416 and have:  # nothing is left to fetch
            return
        response.raise_for_status()
        start, length = have if response.status_code == 206 else 0, response.headers.get("Content-Length")
        with part.open("ab" if start else "wb") as file, Progress(*columns) as progress:
            task = progress.add_task(part.stem, total=start + int(length) if length else None, completed=start)
            for chunk in response.iter_raw():
                file.write(chunk)
                progress.update(task, advance=len(chunk))
