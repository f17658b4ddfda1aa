"""Reads, verifies and writes the files of a bundle.

`read_bundle` verifies every file before any is used, and returns the bytes that it has hashed: a file that changes in
between has no effect.
"""

import hashlib
import io
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.bundle.manifest import FORMAT, MANIFEST, Array, Manifest, Provider
from app.errors import BundleError

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FILE_BYTES = 2**31
"""Maximum bytes of the manifest, and of each other file: ONNX allows graphs of 2 GiB."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were read and verified."""

    manifest: Manifest
    encoder: bytes
    decoder: bytes
    arrays: dict[str, NDArray[Any]]
    reduced: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def graphs_of(self, provider: Provider) -> tuple[bytes, bytes]:
        """ONNX bytes of the encoder and decoder that an execution provider runs."""
        return self.reduced.get(provider, (self.encoder, self.decoder))


def read_manifest(directory: Path) -> Manifest:
    """Read and validate `directory/manifest.json`.

    Raises:
        BundleError: it is missing, not JSON, of an unknown format, or not valid; the message names the file.
    """
    path = directory / MANIFEST
    content = _read(path, MAX_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"])) or "document"
        if place == "format":
            raise BundleError(f"{path} has an unknown format; this server reads format {FORMAT}") from error
        raise BundleError(f"{path} is not a valid manifest: {place}: {wrong['msg']}") from error


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle and verify every file that its manifest names.

    Raises:
        BundleError: the manifest or a file is missing, or a file has a wrong hash; the message names the file.
    """
    manifest = read_manifest(directory)
    content = {name: _read_verified(directory / name, sha256) for name, sha256 in manifest.files.items()}
    arrays = {name: _read_array(directory, array, content[array.file]) for name, array in manifest.arrays.items()}
    graphs = manifest.graphs
    reduced = {
        provider: (content[pair.encoder.file], content[pair.decoder.file])
        for provider, pair in manifest.reduced.items()
    }
    return Bundle(manifest, content[graphs.encoder.file], content[graphs.decoder.file], arrays, reduced)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `directory/manifest.json` atomically: a reader sees the old or the new manifest, never a part."""
    temporary = directory / f".{MANIFEST}"
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n")
    temporary.replace(directory / MANIFEST)


def write_array(directory: Path, name: str, array: NDArray[Any]) -> Array:
    """Write `directory/name.npy` and return its entry for the manifest."""
    path = directory / f"{name}.npy"
    np.save(path, array, allow_pickle=False)
    return Array.model_validate(describe(path) | {"dtype": str(array.dtype), "shape": array.shape})


def describe(path: Path) -> dict[str, str]:
    """Name and sha256 of a file, as entries of the manifest."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _read(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file: reading a named pipe or a device might never end."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is not a regular file")
            if status.st_size > max_bytes:
                raise BundleError(f"{path} has more than {max_bytes} bytes")
            return file.read(status.st_size)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a named pipe without waiting for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_verified(path: Path, sha256: str) -> bytes:
    content = _read(path, MAX_FILE_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path} does not have the sha256 that {MANIFEST} says")
    return content


def _read_array(directory: Path, entry: Array, content: bytes) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # the header is a Python literal: its parser raises many kinds of errors
        raise BundleError(f"{directory / entry.file} is not an npy file") from error
    if array.dtype != entry.dtype or array.shape != entry.shape:
        raise BundleError(f"{directory / entry.file} is not the {entry.dtype} array of {MANIFEST}")
    array.setflags(write=False)
    return array
