"""Versions of new bundles: the next free one, and never one that another process is writing."""

import multiprocessing
from pathlib import Path

import pytest
from filelock import Timeout

from app.errors import CommandError
from training.versions import choose_version, reserve_version


def hold(folder: Path, held: object, done: object) -> None:
    with reserve_version(folder, None, replace=False):
        held.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_the_next_version_is_one_more_than_the_newest(tmp_path: Path) -> None:
    for name in ("1", "7", ".9.partial", "notes"):
        (tmp_path / name).mkdir()
    assert choose_version(tmp_path, None, replace=False) == 8
    assert choose_version(tmp_path, 3, replace=False) == 3
    assert choose_version(tmp_path, 7, replace=True) == 7
    with pytest.raises(CommandError, match="7 is there: pass another --version, or --replace"):
        choose_version(tmp_path, 7, replace=False)


def test_a_version_that_another_process_writes_is_not_given_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder, held, done = tmp_path / "models" / "mine", context.Event(), context.Event()
    process = context.Process(target=hold, args=(folder, held, done))
    process.start()
    try:
        assert held.wait(60)
        with reserve_version(folder, None, replace=False) as version:
            assert version == 2
            (folder / "2").mkdir()
        refusal = pytest.raises(CommandError, match=r"another process is writing .*/1: wait, or pass another --version")
        with refusal, reserve_version(folder, 1, replace=True):
            pass
    finally:
        done.set()
        process.join(60)
    assert process.exitcode == 0
    with reserve_version(folder, 1, replace=False) as version:
        assert version == 1
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_nothing_is_left_of_a_version_that_was_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "models" / "mine"
    with pytest.raises(ValueError, match="refused"), reserve_version(folder, None, replace=False):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_missed_inside_is_no_other_version(tmp_path: Path) -> None:
    with pytest.raises(Timeout), reserve_version(tmp_path / "mine", None, replace=False):
        raise Timeout("elsewhere")
    assert list(tmp_path.iterdir()) == []
