"""As much of kustomize as deploy/kubernetes uses, because a recent one is not in every package registry: resources,
components, generated config maps, strategic merges and images. Where kubectl is there, a test compares the two."""

import copy
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "volumeMounts": "mountPath"}
"""Lists that are merged item by item, and what tells their items apart; others are replaced."""
UNDERSTOOD = {
    "apiVersion",
    "kind",
    "resources",
    "components",
    "configMapGenerator",
    "patches",
    "images",
}
HASH = "-0000000000"
"""In place of the hash that ends the name of a generated config map."""


def build(directory: Path) -> list[Document]:
    """What `kubectl kustomize` writes, but for the order and the hashes."""
    documents = _accumulated(directory, [])
    names = {it["metadata"]["name"] for it in documents if it["kind"] == "ConfigMap"}
    return [_renamed(document, names) for document in documents]


def _accumulated(directory: Path, documents: list[Document]) -> list[Document]:
    """The documents that a kustomization makes of those that were there before."""
    wanted = yaml.safe_load((directory / "kustomization.yaml").read_text())
    assert wanted.keys() <= UNDERSTOOD, wanted.keys() - UNDERSTOOD
    for resource in wanted.get("resources", ()):
        path = (directory / resource).resolve()
        documents += _accumulated(path, []) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for component in wanted.get("components", ()):
        documents = _accumulated((directory / component).resolve(), documents)
    for generator in wanted.get("configMapGenerator", ()):
        _generate(documents, generator)
    for patch in wanted.get("patches", ()):
        _patch(documents, yaml.safe_load((directory / patch["path"]).read_text()))
    for image in wanted.get("images", ()):
        for container in _containers(documents):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return documents


def _generate(documents: list[Document], generator: Document) -> None:
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    if generator.get("behavior") == "merge":
        _found(documents, "ConfigMap", generator["name"])["data"] |= data
    else:
        documents.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )


def _patch(documents: list[Document], patch: Document) -> None:
    target = _found(documents, patch["kind"], patch["metadata"]["name"])
    target.update(_merged(target, patch))


def _found(documents: list[Document], kind: str, name: str) -> Document:
    (found,) = [it for it in documents if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def _merged(old: Any, new: Any, name: str = "") -> Any:
    """A strategic merge."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merged(old.get(key), value, key) for key, value in new.items()}
    if isinstance(old, list) and name in MERGE_KEYS:
        key = MERGE_KEYS[name]
        items = {item[key]: item for item in old}
        return list((items | {item[key]: _merged(items.get(item[key]), item) for item in new}).values())
    return copy.deepcopy(new)


def _containers(documents: list[Document]) -> list[Document]:
    pods = [it["spec"]["template"]["spec"] for it in documents if it["kind"] in ("Deployment", "Job")]
    return [container for pod in pods for part in ("containers", "initContainers") for container in pod.get(part, ())]


def _renamed(part: Any, names: set[str]) -> Any:
    """The same with the names of config maps, and what refers to them, as generated ones are called."""
    if isinstance(part, list):
        return [_renamed(item, names) for item in part]
    if not isinstance(part, dict):
        return part
    renamed = {key: _renamed(value, names) for key, value in part.items()}
    if part.get("kind") == "ConfigMap":
        renamed["metadata"] = part["metadata"] | {"name": part["metadata"]["name"] + HASH}
    if "configMapRef" in part:
        assert part["configMapRef"]["name"] in names
        renamed["configMapRef"] = {"name": part["configMapRef"]["name"] + HASH}
    return renamed
