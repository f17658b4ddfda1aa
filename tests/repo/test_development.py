"""What developers run: each script does what it says, and a forge and pre-commit call the same ones as everybody."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path, PurePath

import pytest
import yaml

from tests.conftest import ROOT

TOUCHED = runpy.run_path(str(ROOT / "scripts/touched"), run_name="touched")


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("app/codecs/npy.py", "tests/app/codecs/test_npy.py"),
        ("app/codecs/none.py", "tests/app/codecs"),
        ("training/recipes/mnist.toml", None),
        ("tests/app/codecs/test_png.py", "tests/app/codecs/test_png.py"),
        ("tests/explorer/conftest.py", "tests/explorer"),
        ("tests/conftest.py", None),
        ("docs/api.md", "tests/repo"),
        ("Dockerfile", None),
    ],
)
def test_a_change_has_its_tests(changed: str, tests: str | None) -> None:
    found = TOUCHED["tests_of"](PurePath(changed))
    assert found == (None if tests is None else PurePath(tests))


def test_what_has_changed_is_asked_of_git(tmp_path: Path) -> None:
    for path in ("app/codecs/png.py", "app/codecs/none.py", "tests/app/codecs/test_png.py", "scripts/touched"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "scripts/touched").write_text((ROOT / "scripts/touched").read_text())
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def touched() -> list[str]:
        command = [sys.executable, "scripts/touched"]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()

    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    assert touched() == []
    (tmp_path / "app/codecs/png.py").write_text("x = 1")
    assert touched() == ["tests/app/codecs/test_png.py"]
    (tmp_path / "app/codecs/new.py").write_text("x = 1")
    assert touched() == ["tests/app/codecs"]


REPORT = """<testsuites><testsuite>
<testcase classname="tests.live.test_a" name="test_x[1]" time="2.0"/>
<testcase classname="tests.live.test_a" name="test_x[2]" time="3.5"/>
<testcase classname="tests.app.test_b" name="test_y" time="4.0"/>
</testsuite></testsuites>"""


def test_the_slowest_tests_are_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- slowest -->\nold\n<!-- /slowest -->\nafter\n")
    (tmp_path / "fast.xml").write_text(REPORT)
    (tmp_path / "slow.xml").write_text(REPORT.replace("tests.", "tests.slow."))
    subprocess.run([sys.executable, ROOT / "scripts/slowest", page, tmp_path], check=True)
    before, *rows, after = [line for line in page.read_text().splitlines() if not line.startswith("<!--")]
    assert (before, after) == ("before", "after")
    assert "| `tests/live/test_a.py::test_x` | 6 | `make test` |" in rows
    assert "| `tests/slow/app/test_b.py::test_y` | 4 | `make test-all` |" in rows
    assert len(rows) == 2 + 4


def test_slow_tests_that_the_page_names_are_there() -> None:
    page = ROOT / "docs/architecture.md"
    listed = page.read_text().partition("<!-- slowest -->")[2] if page.exists() else ""
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", listed.partition("<!-- /slowest -->")[0]):
        assert f"def {name}(" in (ROOT / path).read_text(), f"run make slowest: {path} has no {name}"


def test_scripts_are_executable() -> None:
    programs = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".sh"]
    assert all(os.access(path, os.X_OK) for path in [*programs, ROOT / ".ci/run"])


def test_a_forge_runs_what_everybody_runs() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test-all"
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^test-all: test ", makefile, re.MULTILINE)


def test_a_commit_is_checked_as_scripts_check_does() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    checks = (ROOT / "scripts/check").read_text()
    for hook in local["hooks"]:
        program = hook["entry"]
        assert program in checks.replace("format --check", "format")
        assert hook["language"] == "system"
