"""API keys: which requests carry a known one, and where the server reads them."""

import hashlib
import os
from pathlib import Path

import pytest

from app.errors import StartupError
from app.security import keys as auth
from app.security.keys import Keys, KeysFile, entry_of, new_key, read_keys

KEY, OTHER = "a-key-of-16-chars", "another-key-of-16"
SHA256 = hashlib.sha256(KEY.encode()).hexdigest()


def name_of(keys: Keys, value: str) -> str | None:
    caller = keys.caller([(b"host", b"a"), (b"authorization", value.encode())])
    return caller and caller.name


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_known_key_is_accepted(value: str) -> None:
    assert name_of(Keys(api=KEY), value) == "default"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer x {KEY}",
        "Bearer ü",
        f"Bearer {SHA256}",
        f"Bearer sha256:{SHA256}",
        f"Bearer web:{KEY}",
    ],
)
def test_anything_else_is_not_accepted(value: str) -> None:
    for keys in (Keys(api=KEY, admin=KEY, entries=f"web:{KEY}"), Keys()):
        assert name_of(keys, value) is None
        assert keys.caller([]) is None


def test_the_first_of_several_headers_counts() -> None:
    headers = [(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer " + KEY.encode())]
    assert Keys(api=KEY).caller(headers) is None


def test_every_key_has_its_name_and_only_admin_keys_are_such() -> None:
    keys = Keys(api="the-key-of-everybody", entries=f"web:{KEY}, batch:sha256:{'0' * 64}", admin=OTHER)
    assert [name_of(keys, f"Bearer {key}") for key in (KEY, OTHER, "the-key-of-everybody")] == [
        "web",
        "admin",
        "default",
    ]
    admin = keys.caller([(b"authorization", f"Bearer {OTHER}".encode())])
    web = keys.caller([(b"authorization", f"Bearer {KEY}".encode())])
    assert (admin and admin.is_admin, web and web.is_admin) == (True, False)


def test_entries() -> None:
    text = f"# who\n\nweb:{KEY}\n  web:sha256:{'a' * 64}  \nops:sha256:{SHA256} admin\n"
    text += f"slow:{OTHER} rate=1/second;5/minute\nloud:sha256:{SHA256.upper()}\n"
    web, second, ops, slow, loud = read_keys(text, "keys")
    assert loud.digest.hex() == SHA256
    assert (web.name, web.digest.hex(), web.is_admin, web.rate) == ("web", SHA256, False, None)
    assert (second.name, second.digest.hex()) == ("web", "a" * 64)
    assert (ops.digest.hex(), ops.is_admin) == (SHA256, True)
    assert [item.amount for item in slow.rate or ()] == [1, 5]


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        "web:short",
        f"web {KEY}",
        f"we b:{KEY}",
        f"web:{KEY} root",
        f"web:{KEY} rate=fast",
        f"web:{KEY} rate=0/minute",
        f"-web:{KEY}",
        f":{KEY}",
        "web:sha256:12ab",
        f"web:sha256:{SHA256[:-1]}",
        f"web:sha256:{SHA256}0",
        f"web:sha256:{'g' * 64}",
        f"wéb:{KEY}",
    ],
)
def test_a_malformed_entry_is_reported_by_its_line_without_its_content(line: str) -> None:
    with pytest.raises(StartupError, match=r"^keys, line 2: ") as refused:
        read_keys(f"# first\n{line}\n", "keys")
    assert KEY not in str(refused.value)


def test_a_new_key_matches_its_entry_which_does_not_contain_it() -> None:
    key = new_key()
    entry = entry_of("web", key, is_admin=True)
    assert key not in entry
    (read,) = read_keys(entry, "keys")
    assert (read.name, read.is_admin, read.digest) == ("web", True, hashlib.sha256(key.encode()).digest())
    assert len({new_key() for _ in range(100)}) == 100
    assert len(key) >= 40


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys files are checked for changes at each request."""
    monkeypatch.setattr(auth, "_CHECK_SECONDS", -1)


def names(file: KeysFile) -> list[str]:
    return [key.name for key in file.read()]


@pytest.mark.usefixtures("prompt")
def test_a_changed_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(f"web:{KEY}\n")
    file = KeysFile(path)
    assert names(file) == ["web"]
    path.write_text(f"web:{KEY}\nbatch:{OTHER}\n")
    assert names(file) == ["web", "batch"]
    swapped = tmp_path / "new"
    swapped.write_text(f"only:{OTHER}\n")
    swapped.rename(path)
    assert names(file) == ["only"]
    path.write_text("")
    assert names(file) == []
    assert KEY not in caplog.text


@pytest.mark.usefixtures("prompt")
def test_a_broken_or_missing_file_changes_nothing_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"web:{KEY}\n")
    file = KeysFile(path)
    for harm in (lambda: path.write_text("nonsense"), lambda: path.write_bytes(b"\xff\xfe"), path.unlink):
        harm()
        assert [names(file) for _ in range(3)] == [["web"]] * 3
    assert caplog.text.count("the keys stay as they are") == 3
    path.write_text(f"again:{KEY}\n")
    assert names(file) == ["again"]


def test_between_two_checks_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"web:{KEY}\n")
    file = KeysFile(path)
    os.unlink(path)
    assert names(file) == ["web"]


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"web", "line 1: ")])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match=rf"^VAE_KEYS_FILE .*{words}"):
        Keys(file=path)


def test_keys_of_settings_and_of_the_file_are_known_together(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(entry_of("web", OTHER))
    keys = Keys(api=KEY, file=tmp_path / "keys")
    assert (name_of(keys, f"Bearer {KEY}"), name_of(keys, f"Bearer {OTHER}")) == ("default", "web")
