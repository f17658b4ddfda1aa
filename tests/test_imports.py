"""Who may import whom."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each module of `app` may import of `app`: the others nothing. Anything may import errors.
ALLOWED = {
    "__init__": set(),
    "__main__": {
        "__init__",
        "descriptors",
        "hangup",
        "listening",
        "logs",
        "main",
        "metrics",
        "protocol",
        "server",
        "settings",
        "supervisor",
        "tls",
        "worker",
    },
    "main": {
        "__init__",
        "api",
        "auth",
        "batcher",
        "cache",
        "catalog",
        "hangup",
        "limits",
        "metrics",
        "rates",
        "session",
        "settings",
        "tracing",
        "watch",
    },
    "auth": {"rates"},
    "settings": {"rates"},
    "api": {
        "__init__",
        "api",
        "arrays",
        "auth",
        "bundle",
        "cache",
        "catalog",
        "codings",
        "directory",
        "gaussian",
        "graphs",
        "images",
        "rates",
        "scatter",
        "score",
        "tables",
        "tensorfiles",
        "tensors",
        "timing",
        "vae",
    },
    "geometry": {"bundle"},
    "tensorfiles": {"tensors"},
    "catalog": {"batcher", "bundle", "changes", "directory", "session", "timing", "vae"},
    "changes": {"directory"},
    "directory": {"bundle"},
    "hangup": {"catalog"},
    "batcher": {"timing"},
    "likelihood": {"gaussian"},
    "scatter": {"gaussian", "images"},
    "tables": {"bundle", "gaussian", "score"},
    "graphs": {
        "batcher",
        "bundle",
        "gaussian",
        "geometry",
        "likelihood",
        "session",
        "tiling",
        "timing",
        "warmup",
    },
    "warmup": {"batcher", "bundle", "gaussian", "geometry", "session"},
    "vae": {
        "batcher",
        "bundle",
        "gaussian",
        "graphs",
        "likelihood",
        "score",
        "scoring",
        "session",
        "tables",
        "threads",
    },
    "scoring": {"gaussian", "graphs", "likelihood", "score", "tables", "threads"},
    "score": {"gaussian", "likelihood"},
    "metrics": {"batcher", "cache", "catalog", "metrics", "timing"},
    "watch": {"__init__", "logs", "metrics", "timing", "traceparent", "tracing"},
    "tracing": {"__init__", "timing"},
    "logs": {"timing"},
    "protocol": {"api", "offers", "settings", "transport"},
    "supervisor": {"worker"},
    "worker": {"server"},
    "cluster": {"api", "cluster", "directory", "limits", "main", "settings"},
    "cli": {"__init__", "__main__", "arrays", "auth", "cli", "gaussian", "images", "main", "settings"},
}
TRAINING_MAY = {"bundle", "errors", "gaussian", "images", "likelihood", "session"}

# Each third-party library enters by one door.
DOORS = {
    "fastapi": {"app/main.py", "app/api"},
    "onnxruntime": {"app/session.py"},
    "PIL": {"app/images.py"},
    "safetensors": {"app/tensorfiles.py"},
    "pydantic_settings": {"app/settings.py"},
    "limits": {"app/rates.py"},
    "prometheus_client": {"app/metrics", "app/cluster/together.py"},
    "opentelemetry": {"app/tracing.py"},
    "uvicorn": {"app/__main__.py", "app/protocol.py", "app/server.py", "app/supervisor.py", "app/worker.py"},
    "typer": {"app/cli"},
    "rich": {"app/cli/commands.py", "app/cli/terminal.py"},
    "httpx2": {"app/cli/client.py"},
    "ray": {"app/cluster/build.py", "app/cluster/replicas.py"},
}


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


def own_imports(path: Path, package: str) -> set[str]:
    """First names below `package` that a file imports; a name of the package itself counts as `__init__`."""
    found = set()
    for name in imports(path):
        head, _, rest = name.partition(".")
        if head == package:
            first = rest.partition(".")[0]
            known = (ROOT / package / first).is_dir() or (ROOT / package / f"{first}.py").exists()
            found.add(first if known else "__init__")
    return found


@pytest.mark.parametrize("path", modules("app"), ids=str)
def test_app_imports_only_what_it_may(path: Path) -> None:
    module = path.relative_to(ROOT / "app").parts[0].removesuffix(".py")
    assert own_imports(path, "app") <= ALLOWED.get(module, set()) | {"errors"}
    assert not {name for name in imports(path) if name.split(".")[0] in ("training", "torch")}


@pytest.mark.parametrize("path", modules("training"), ids=str)
def test_training_imports_only_what_it_may(path: Path) -> None:
    assert own_imports(path, "app") <= TRAINING_MAY


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
