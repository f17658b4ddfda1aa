"""The locks hold what pyproject.toml asks for, at the versions of constraints.txt, and nothing without a hash."""

import re
import tomllib
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"cpu": "requirements.lock", "gpu": "requirements-gpu.lock"}
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}


def locked(extra: str) -> dict[str, str]:
    """Names and versions of a lock."""
    text = (ROOT / LOCKS[extra]).read_text()
    return dict(re.findall(r"^([\w.-]+)==([^\s\\;]+)", text, flags=re.MULTILINE))


def asked(extra: str) -> list[Requirement]:
    return [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]]


def needed(requirement: Requirement, seen: dict[str, set[str]]) -> dict[str, set[str]]:
    """Names, each with its extras, of a requirement and of all that it needs on Linux, as installed here."""
    name = canonicalize_name(requirement.name)
    extras = {"", *requirement.extras}
    if not extras <= seen.get(name, set()):
        seen[name] = seen.get(name, set()) | extras
        for line in requires(name) or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate(LINUX | {"extra": extra}) for extra in extras):
                needed(need, seen)
    return seen


@pytest.mark.parametrize("extra", LOCKS)
def test_every_requirement_is_locked_at_a_version_that_it_allows(extra: str) -> None:
    pins = locked(extra)
    for requirement in asked(extra):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_all_that_they_need_is_locked_and_nothing_else() -> None:
    seen: dict[str, set[str]] = {}
    for requirement in asked("cpu"):
        needed(requirement, seen)
    assert set(locked("cpu")) == set(seen), "run scripts/lock --keep"


@pytest.mark.parametrize("extra", LOCKS)
def test_versions_are_those_of_the_constraints(extra: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    constraints = dict(line.split("==") for line in lines)
    ours = {name: version for name, version in locked(extra).items() if not name.startswith("nvidia-")}
    assert ours == {name: constraints.get(name) for name in ours}, "run scripts/lock --keep"


def test_the_variants_differ_in_onnx_runtime_and_what_its_gpu_build_brings() -> None:
    cpu, gpu = set(locked("cpu").items()), set(locked("gpu").items())
    assert {name for name, _ in cpu - gpu} == {"onnxruntime"}
    brought = {name for name, _ in gpu - cpu}
    assert {name for name in brought if not name.startswith("nvidia-")} == {"onnxruntime-gpu"}
    assert {"nvidia-cudnn-cu13", "nvidia-cublas"} <= brought


@pytest.mark.parametrize("extra", LOCKS)
def test_every_version_has_the_hashes_of_its_files(extra: str) -> None:
    text = (ROOT / LOCKS[extra]).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(locked(extra))
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line.rstrip()), line
