"""Directories that change whole or not at all."""

import shutil
from pathlib import Path

import pytest

from training.atomic import whole


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "1"
    directory.mkdir()
    (directory / "a").write_text("old")
    return directory


def test_it_takes_the_targets_place(target: Path) -> None:
    with whole(target) as partial:
        (partial / "b").write_text("new")
        assert files(target) == {"a": "old"}
    assert files(target) == {"b": "new"}
    assert list(target.parent.iterdir()) == [target]


def test_a_copy_starts_from_what_is_there(target: Path) -> None:
    with whole(target, copy=target) as partial:
        (partial / "b").write_text("new")
    assert files(target) == {"a": "old", "b": "new"}


def test_a_copy_that_fails_leaves_nothing(target: Path) -> None:
    (target / "c").symlink_to(target / "nowhere")
    with pytest.raises(shutil.Error), whole(target.with_name("2"), copy=target):
        pass
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("copy", [True, False])
def test_a_failure_leaves_the_target(target: Path, copy: bool) -> None:
    def fail() -> None:
        with whole(target, copy=target if copy else None) as partial:
            (partial / "a").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert files(target) == {"a": "old"}
    assert list(target.parent.iterdir()) == [target]


def test_a_first_one_needs_no_target(tmp_path: Path) -> None:
    with whole(tmp_path / "name" / "1") as partial:
        (partial / "a").write_text("new")
    assert files(tmp_path / "name" / "1") == {"a": "new"}


def test_a_kill_between_the_two_renames_is_mended(target: Path) -> None:
    target.rename(target.with_name(".1.old"))
    with pytest.raises(OSError, match="full"), whole(target):
        raise OSError("full")
    assert files(target) == {"a": "old"}


def test_a_replacement_that_fails_at_the_end_loses_nothing(target: Path) -> None:
    with pytest.raises(OSError, match="No such file"), whole(target) as directory:
        shutil.rmtree(directory)
    with whole(target, copy=target) as directory:
        assert files(directory) == {"a": "old"}
