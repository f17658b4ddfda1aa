"""What docs/ says is true: its links, the functions and arrays that it names, and its code, which runs."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import multivariate_normal

from app.bundle.files import read_manifest
from app.errors import BundleError
from app.maths.likelihood import PARAMETERS
from tests.conftest import MODELS, ROOT, Start
from tests.pages import blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BUNDLE, MATHEMATICS = ((ROOT / "docs" / name).read_text() for name in ("bundle-format.md", "mathematics.md"))
FENCE = re.compile(r"^```.*?^```$", flags=re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page, which must differ."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return set(names) | {f"{name}-{index}" for name in names for index in range(1, names.count(name))}


def block(text: str, language: str) -> str:
    return "\n".join(blocks(text, language))


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of every table below a heading; `|` in a cell is escaped."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def defined(path: Path) -> set[str]:
    """Dotted names of the functions and classes of a module, and of its classes' functions."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else []
            kept = (part for part in inner if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{part.name}" for part in kept}
    return names


def test_every_function_that_computes_a_formula_is_there() -> None:
    named = re.findall(r"`((?:app|training)/[\w/]+\.py)::([\w.]+)`", MATHEMATICS)
    assert len(named) > 40
    assert [f"{path}::{name}" for path, name in named if name not in defined(ROOT / path)] == []


def test_every_paper_that_is_cited_is_among_the_sources() -> None:
    text, _, sources = MATHEMATICS.partition("\n## Sources\n")
    listed = [" ".join(entry.split()) for entry in re.split(r"^- ", sources, flags=re.MULTILINE)]
    cited = re.findall(r"([A-Z]\w+)(?: et al\.)? \(?((?:19|20)\d\d)\b", " ".join((text + BUNDLE).split()))
    assert len(cited) > 20
    for name, year in cited:
        assert any(name in entry and f" {year}, " in entry for entry in listed), (name, year)


def test_the_formulas_hold() -> None:
    command = [sys.executable, "-W", "error", "-c", block(MATHEMATICS, "python")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/manifest.json")), ids=lambda path: path.parent.parent.name)
def test_shipped_arrays_are_as_documented(path: Path) -> None:
    documented = {row[0].strip("`"): row[1:3] for row in rows(BUNDLE, "The arrays")[2:]}
    manifest = read_manifest(path.parent)
    sizes = {"d": manifest.latent.shape[0]}
    for name, array in manifest.arrays.items():
        dtype, shape = documented[name]
        letters = re.findall(r"\w+", shape)
        assert (array.dtype, len(array.shape)) == (dtype, len(letters)), name
        for letter, size in zip(letters, array.shape, strict=True):
            assert sizes.setdefault(letter, size) == size, (name, letter)


def test_every_array_that_is_documented_is_shipped() -> None:
    documented = {row[0].strip("`") for row in rows(BUNDLE, "The arrays")[2:]}
    assert documented == set(read_manifest(MODELS / "mnist" / "2").arrays)


def test_likelihoods_have_the_parameters_that_are_documented() -> None:
    documented = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(BUNDLE, "The graphs")}
    assert {name: documented.get(name) for name in PARAMETERS} == PARAMETERS


def test_refusals_are_worded_as_documented() -> None:
    said = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    documented = re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows(BUNDLE, "What refuses a bundle")[2:]))
    assert len(documented) > 12
    assert [words for words in documented if words not in said] == []


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A directory in which the page's program has written its bundle."""
    subprocess.run([sys.executable, "-W", "error", "-c", block(BUNDLE, "python")], cwd=tmp_path, check=True)
    return tmp_path


def test_the_bundle_from_nothing_is_served_and_answers_as_described(start: Start, written: Path) -> None:
    _, client = start(models_dir=written / "my-models")
    address = f"{client.base_url.host}:{client.base_url.port}"
    commands = [line for line in block(BUNDLE, "sh").splitlines() if line.startswith("curl")]
    answers = {}
    for command in commands:
        script = command.replace("127.0.0.1:8000", address).replace("curl -s", "curl -sS --fail-with-body")
        done = subprocess.run(["bash", "-c", script], cwd=written, capture_output=True, check=True)
        answers[command.split(":8000/")[1].split("/")[0].split()[0]] = done.stdout
    encoded, path, scores = (json.loads(answers[name]) for name in ("encode", "interpolate", "score"))
    assert [round(value, 2) for value in encoded["mean"][0]] == [1.48, -0.49]
    assert path["latents"][0::9] == [[-2, 0], [2, 0]]
    truth = log_p_x(np.asarray(Image.open(written / "wave.png")))
    assert scores["log_likelihood"][0] == pytest.approx(truth, abs=1e-3)
    assert scores["effective_sample_size"][0] == pytest.approx(4, abs=1e-3)
    for figure in ("(1.48, -0.49)", f"{truth:.4f}", f"{scores['elbo'][0]:.2f}"):
        assert figure in BUNDLE


def log_p_x(levels: np.ndarray) -> float:
    """The truth about the page's model: x is normal with mean 0.5 and covariance W W^T + 0.01 I."""
    wave = 0.15 * np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    factors = np.stack([np.tile(wave, 8), np.repeat(wave, 8)])
    return float(
        multivariate_normal(np.full(64, 0.5), factors.T @ factors + 0.01 * np.eye(64)).logpdf(levels.ravel() / 255)
    )


def test_a_key_that_is_not_documented_is_refused(written: Path) -> None:
    directory = written / "my-models" / "waves" / "1"
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"colour": "red"}))
    with pytest.raises(BundleError, match="colour"):
        read_manifest(directory)
