"""Recipe, log and report of a bundle are read as they are, or refused by name."""

from pathlib import Path

import pytest

from app.errors import BundleError
from training.bundling.record import read_log, read_recipe, read_report, watched


def test_a_log_is_read_by_column(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text("epoch,train/kl\n1,2.5\n2,1.5\n")
    assert read_log(tmp_path / "training.csv") == {"epoch": [1.0, 2.0], "train/kl": [2.5, 1.5]}


@pytest.mark.parametrize("content", [None, "epoch,train/kl\n"], ids=["missing", "no epoch"])
def test_a_log_without_epochs_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "training.csv").write_text(content)
    with pytest.raises(BundleError, match=r"training\.csv"):
        read_log(tmp_path / "training.csv")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_watched_split_is_the_one_that_the_log_has(split: str) -> None:
    assert watched({"epoch": [1.0], "train/negative_elbo": [2.0], f"{split}/negative_elbo": [3.0]}) == split


def test_a_recipe_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "x"\n[future]\nkey = 1\n')
    assert read_recipe(tmp_path) == {"name": "x", "future": {"key": 1}}


@pytest.mark.parametrize("content", [None, b"name =", b"\xff"], ids=["missing", "not TOML", "not UTF-8"])
def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(BundleError, match=r"recipe\.toml"):
        read_recipe(tmp_path)


def test_a_report_need_not_be_there_but_must_be_json(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    (tmp_path / "report.json").write_text('{"epochs": 3}')
    assert read_report(tmp_path) == {"epochs": 3}
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BundleError, match=r"report\.json"):
        read_report(tmp_path)
