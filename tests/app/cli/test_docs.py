"""What docs/cli.md shows is what one sees."""

import re
from pathlib import Path

from tests.app.cli.conftest import link_bundles, shell
from tests.conftest import ROOT
from tests.pages import blocks

TEXT = (ROOT / "docs" / "cli.md").read_text()
FIGURE = re.compile(r"-?[\d,]+\.\d+|\d[\d,]{3,}")
COUNT = re.compile(r"(?<=200: )\d+")
"""How many answers the benchmark got, which may be few."""


def steps() -> list[tuple[str, list[str]]]:
    """Each command of the page, and the lines that it shows."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(TEXT, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def test_every_command_shows_what_the_page_says(tmp_path: Path, url: str) -> None:
    link_bundles(tmp_path / "models")
    assert len(steps()) > 10
    for command, expected in steps():
        done = shell(f"{{ {command}; }} 2>&1", tmp_path, VAE_URL=url)
        shown = COUNT.sub("1000", done.stdout.decode()).splitlines()
        figures = [FIGURE.findall(" ".join(lines)) for lines in (shown, expected)]
        texts = [[FIGURE.sub("0", line).split() for line in lines] for lines in (shown, expected)]
        assert texts[0] == texts[1], command
        if "bench" not in command:  # whose figures are of that day
            near = [abs(a - b) <= 0.02 for a, b in zip(*([float(f) for f in found] for found in figures), strict=True)]
            assert all(near), command
