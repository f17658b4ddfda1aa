"""`vaeserve key`: a key that a server takes, and a file that tells it of it."""

import stat
from pathlib import Path

import pytest

from app.security.keys import Keys
from tests.app.cli.conftest import Call


def caller(path: Path, key: str) -> tuple[str, bool]:
    found = Keys(file=path).caller([(b"authorization", f"Bearer {key}".encode())])
    assert found is not None
    return found.name, found.is_admin


def test_keys_are_added_to_a_file_of_hashes(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    web = call("key", "web", "--file", str(path))[1].strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    operator = call("key", "operator", "--admin", "--rate", "20/second;600/minute", "--file", str(path))[1].strip()
    assert (caller(path, web), caller(path, operator)) == (("web", False), ("operator", True))
    assert web not in path.read_text()
    assert path.read_text().splitlines()[1].endswith(" admin rate=20/second;600/minute")


def test_a_file_without_a_last_line_end_is_gone_on_with(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nold:a-key-of-16-chars")
    new = call("key", "new", "--file", str(path))[1].strip()
    assert (caller(path, "a-key-of-16-chars"), caller(path, new)) == (("old", False), ("new", False))


def test_without_a_file_the_line_is_shown(call: Call, tmp_path: Path) -> None:
    status, key, told = call("key", "web")
    assert (status, key.count("\n")) == (0, 1)
    path = tmp_path / "keys"
    path.write_text(told.partition(": ")[2])
    assert caller(path, key.strip()) == ("web", False)


@pytest.mark.parametrize("arguments", [("a b",), ("-",), ("web", "--rate", "fast"), ("web", "--rate", "1/second x")])
def test_what_no_keys_file_takes_is_one_sentence(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "keys"
    status, shown, told = call("key", *arguments, "--file", str(path))
    assert (status, shown, path.exists()) == (2, "", False)
    assert told.startswith("error: NAME has letters")
    assert told.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_sentence(call: Call, tmp_path: Path) -> None:
    status, shown, told = call("key", "web", "--file", str(tmp_path / "none" / "keys"))
    assert (status, shown) == (1, "")
    assert told == f"error: {tmp_path}/none/keys cannot be written: No such file or directory\n"
