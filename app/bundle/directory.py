"""The models directory: finds and reads its bundles, by name and version."""

import os
from collections.abc import Collection
from pathlib import Path

from app.bundle.files import Bundle, read_bundle, read_manifest
from app.bundle.manifest import MANIFEST, ModelKey
from app.errors import BundleError


def find_bundles(models_dir: Path, names: Collection[str] = ()) -> dict[ModelKey, Path]:
    """Find the directories `<name>/<version>` of `models_dir`, ascending; only for the models `names`, if not empty.

    A version is a plain number, so that a bundle can be copied in as `3.part` and then renamed to `3`. `models_dir` may
    also be a single bundle, with any name. A version's directory counts even if it has no manifest: it is broken then.

    Raises:
        BundleError: `models_dir` is a bundle whose manifest cannot be read.
    """
    if os.path.lexists(models_dir / MANIFEST):
        key = read_manifest(models_dir).key
        return {key: models_dir} if not names or key.name in names else {}
    found = {
        ModelKey(path.parent.name, int(path.name)): path
        for path in models_dir.glob("[!.]*/[1-9]*")
        if path.name.isascii() and path.name.isdigit() and path.is_dir() and (not names or path.parent.name in names)
    }
    return dict(sorted(found.items()))


def read_found(key: ModelKey, directory: Path) -> Bundle:
    """Read and verify a bundle that `find_bundles` found.

    Raises:
        BundleError: it is damaged, or its name or version differs from its directory's; the message names the file.
    """
    bundle = read_bundle(directory)
    if (found := bundle.manifest.key) != key:
        raise BundleError(f"{directory / MANIFEST} is of {found.name} {found.version}, not of the directory it lies in")
    return bundle
