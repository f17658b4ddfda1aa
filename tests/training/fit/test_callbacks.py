"""What a run shows on a terminal as it goes."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.training.conftest import Workshop, tiny_recipe
from training.fit.train import train


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """What is printed goes to what stands for a terminal."""
    terminal = Terminal()
    with monkeypatch.context() as patch:
        for name, value in {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", terminal)
        yield terminal


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_the_net_the_way_and_what_came_of_it(
    trained: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path, "tiny-ae", training={"epochs": 2})
    with at_terminal(monkeypatch) as terminal:
        train(recipe, data_dir=trained.data_dir, runs=tmp_path)
    text = plain(terminal.getvalue())
    assert re.search(r"encoder +│ ArticleEncoder", text), "the layers"
    nats = re.findall(r"epoch 2/2 \S* *12/12 steps, ([\d.]+) nats", text)[-1]
    assert float(nats) > 100
    assert re.search(r"[\r\n]epoch 1  train/reconstruction \d", text)
    assert "images per second" in text
    assert "\x1b[?25h" in terminal.getvalue().split("\x1b[?25l")[-1], "the cursor is shown again"


def test_the_bar_is_put_away_when_a_run_fails(
    trained: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.callbacks.EpochLog.on_train_epoch_end", lambda *_: 1 / 0)
    with at_terminal(monkeypatch) as terminal, pytest.raises(ZeroDivisionError):
        train(tiny_recipe(tmp_path, "tiny-ae"), data_dir=trained.data_dir, runs=tmp_path)
    assert "\x1b[?25h" in terminal.getvalue().split("\x1b[?25l")[-1]
