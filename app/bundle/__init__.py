"""The contract on disk: a bundle is a directory whose `manifest.json` names every other file with its sha256."""

from app.bundle.files import Bundle, describe, read_bundle, read_manifest, write_array, write_manifest
from app.bundle.manifest import MANIFEST, Array, File, GraphFile, GraphFiles, Manifest, Provider, Reduced, Tensor

__all__ = [
    "MANIFEST",
    "Array",
    "Bundle",
    "File",
    "GraphFile",
    "GraphFiles",
    "Manifest",
    "Provider",
    "Reduced",
    "Tensor",
    "describe",
    "read_bundle",
    "read_manifest",
    "write_array",
    "write_manifest",
]
