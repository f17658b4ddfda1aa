"""Who may import whom."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each folder or module of `app` may import of `app`. Anything may import errors and the version.
ALLOWED = {
    "maths": set(),
    "security": set(),
    "observability": set(),
    "cache": set(),
    "bundle": {"maths"},
    "codecs": {"maths"},
    "settings": {"security"},
    "inference": {"bundle", "maths", "observability"},
    "vae": {"inference", "bundle", "maths", "observability"},
    "metrics": {"vae", "inference", "cache", "observability"},
    "api/routing": {"vae", "inference", "cache", "observability", "security", "settings"},
    "api/forms": {"api/routing", "vae", "inference/offload", "codecs", "maths"},
    "api/operations": {"api/forms", "api/routing", "vae", "bundle", "codecs", "maths"},
    "api/service": {"api/routing", "vae", "bundle"},
    "api/v2": {"api/forms", "api/routing", "vae", "inference", "bundle", "codecs"},
    "api/middleware": {"api/routing", "security", "metrics", "observability"},
    "api/openapi": {"api/routing", "api/middleware"},
    "api": {"api/operations", "api/service", "api/v2"},
    "main": {"api", "metrics", "vae", "inference", "security", "observability", "cache", "settings"},
    "server": {"main", "api/routing", "vae", "metrics", "security", "observability", "settings"},
    "__main__": {"server", "settings"},
    "cluster": {"main", "api", "bundle", "settings"},
    "cli": {"server", "main", "security", "codecs", "maths", "settings"},
}
TRAINING_MAY = {"bundle", "codecs/images", "errors", "inference/session", "inference/tiling", "maths"}

# Each third-party library enters by one door.
DOORS = {
    "fastapi": {"app/main.py", "app/api"},
    "onnxruntime": {"app/inference/session.py"},
    "PIL": {"app/codecs/images.py"},
    "safetensors": {"app/codecs/safetensors.py"},
    "pydantic_settings": {"app/settings.py"},
    "limits": {"app/security/rates.py"},
    "prometheus_client": {"app/metrics", "app/cluster/fan_out.py"},
    "opentelemetry": {"app/observability/tracing.py"},
    "uvicorn": {"app/server"},
    "typer": {"app/cli"},
    "rich": {"app/cli/main.py", "app/cli/terminal.py"},
    "httpx2": {"app/cli/client.py"},
    "ray": {"app/cluster/build.py", "app/cluster/replicas.py"},
}

MAX_MODULES = 12
"""Modules in one folder, so that a newcomer reads their names at a glance."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path: Path) -> set[str]:
    """Modules of `app` that a file imports, as paths below it; "" is the package itself."""
    found = set()
    for name in imports(path):
        head, *steps = name.split(".")
        if head == "app":
            while steps and not _exists(ROOT / "app" / "/".join(steps)):
                steps.pop()  # a name within the module
            found.add("/".join(steps))
    return found


def _exists(module: Path) -> bool:
    return module.is_dir() or module.with_suffix(".py").exists()


def is_within(module: str, places: set[str]) -> bool:
    """Whether a module is one of these places, or lies in one."""
    return any(module == place or module.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("path", modules("app"), ids=str)
def test_app_imports_only_what_it_may(path: Path) -> None:
    module = path.relative_to(ROOT / "app").with_suffix("").as_posix().removesuffix("__init__").rstrip("/")
    place = next((place for place in ALLOWED if is_within(module, {place})), None)
    may = {"errors"} if place is None else {"errors", place} | ALLOWED[place]
    assert {target for target in own_imports(path) if target and not is_within(target, may)} == set()
    assert not {name for name in imports(path) if name.split(".")[0] in ("training", "torch")}


@pytest.mark.parametrize("path", modules("training"), ids=str)
def test_training_imports_only_what_it_may(path: Path) -> None:
    assert {target for target in own_imports(path) if target and not is_within(target, TRAINING_MAY)} == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in [*modules("app"), *modules("training")]}), ids=str)
def test_a_folder_is_read_at_a_glance(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MAX_MODULES


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in modules("app")
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users, "the library is gone: drop its row"
    assert all(any(user == door or user.startswith(f"{door}/") for door in DOORS[library]) for user in users)


@pytest.mark.parametrize("package", ["app", "training"])
def test_there_is_no_import_cycle(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in modules(package):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {
            target
            for target in imports(path)
            for target in (target, target.rpartition(".")[0])
            if target.startswith(package) and (ROOT / f"{target.replace('.', '/')}.py").exists()
        }

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for target in graph.get(name, ()):
            visit(target, (*path, name))

    for name in graph:
        visit(name, ())
