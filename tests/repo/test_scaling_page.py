"""docs/scaling.md: its commands name what there is, and its arithmetic follows from what was measured."""

import re
import shlex
from collections.abc import Callable

import pytest
import yaml

from app.settings import Settings
from tests import pages
from tests.conftest import ROOT
from tests.kustomize import build

PAGE = (ROOT / "docs" / "scaling.md").read_text()
COMMANDS = [command for block in pages.blocks(PAGE, "sh") for command in pages.commands(block)]


def a_kustomization(*words: str) -> None:
    assert words[:2] == ("apply", "-k")
    assert build(ROOT / words[2])


def the_secret_of_the_keys(*words: str) -> None:
    """As the component mounts it, and the server looks for it."""
    component = ROOT / "deploy/kubernetes/components/keys"
    (volume,) = yaml.safe_load((component / "deployment.yaml").read_text())["spec"]["template"]["spec"]["volumes"]
    assert words[:4] == ("create", "secret", "generic", volume["secret"]["secretName"])
    name = words[4].removeprefix("--from-file=")
    assert f"/{name}\n" in (component / "kustomization.yaml").read_text()


def a_key(*words: str) -> None:
    assert words == ("key", "web", "--file", "keys")


def the_config_that_is_tested(*words: str) -> None:
    """tests/live/test_ray.py runs it."""
    assert words in {
        ("run", "deploy/ray/serve.yaml"),
        ("deploy", "deploy/ray/serve.yaml"),
        ("status",),
    }


def an_install(*words: str) -> None:
    extras = re.findall(r"\w+", words[-1].strip("."))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in project for extra in extras)
    assert words[:3] == ("install", "-c", "constraints.txt")


def the_training_that_is_tested(*words: str) -> None:
    """As the job of deploy/kubernetes/training, which tests/repo/test_kubernetes.py looks at."""
    job = yaml.safe_load((ROOT / "deploy/kubernetes/training/job.yaml").read_text())
    given = job["spec"]["template"]["spec"]["containers"][0]["args"]
    options = {word for word in words if word.startswith("--")}
    assert options <= {it.partition("=")[0] for it in given}
    assert words[-4:] == ("-m", "training", "train", "mnist")


def an_image(*words: str) -> None:
    assert (ROOT / words[words.index("-f") + 1]).exists()


def a_benchmark(*words: str) -> None:
    assert words == ("-m", "bench.scaling")
    assert (ROOT / "bench" / "scaling.py").exists()


def the_server(*words: str) -> None:
    assert words == ("-m", "app")


CHECKS: list[tuple[str, Callable[..., None]]] = [
    ("kubectl create", the_secret_of_the_keys),
    ("kubectl", a_kustomization),
    ("vaeserve", a_key),
    ("serve", the_config_that_is_tested),
    ("pip", an_install),
    ("torchrun", the_training_that_is_tested),
    ("docker", an_image),
    ("python -m bench", a_benchmark),
    ("python", the_server),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_what_there_is(command: str) -> None:
    words = shlex.split(command)
    variables = [word for word in words if re.match("VAE_[A-Z]+=", word)]
    assert {word.partition("=")[0] for word in variables} <= {f"VAE_{name.upper()}" for name in Settings.model_fields}
    program, *arguments = words[len(variables) :]
    check = next(check for start, check in CHECKS if " ".join([program, *arguments]).startswith(start))
    check(*arguments)


def test_every_overlay_is_described() -> None:
    overlays = {path.name for path in (ROOT / "deploy/kubernetes/overlays").iterdir()}
    section = PAGE.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == overlays


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables of a section, of the rows that begin with an operation."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def number(text: str) -> float:
    return float(text.replace(",", ""))


CPUS, BUSY, NODES, HEADERS = 16, 0.6, 1000, 600


def test_the_arithmetic_follows_from_what_was_measured() -> None:
    measured = {row[0]: [number(cell) for cell in row[1:]] for row in rows("Measured") if len(row) == 4}
    derived = {row[0]: [number(cell) for cell in row[1:]] for row in rows("A thousand machines")}
    assert len(measured) == 12
    assert len(derived) == 8
    for milliseconds, each_cpu, _ in measured.values():
        assert each_cpu == pytest.approx(1e3 / milliseconds, rel=0.01)
    for name, (of_node, of_all, gigabits) in derived.items():
        milliseconds, _, size = measured[name]
        assert of_node == pytest.approx(CPUS * BUSY * 1e3 / milliseconds, rel=0.01)
        assert of_all == pytest.approx(NODES * of_node, rel=0.01)
        assert gigabits == pytest.approx(8 * of_node * (size + HEADERS) / 1e9, rel=0.05)
