"""Keys: which requests bring one."""

import pytest

from app.auth import Keys
from app.errors import Unauthorized

KEY = "a-key-of-16-chars"


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_the_admin_key_opens(value: str) -> None:
    Keys(admin=KEY).check_admin([(b"host", b"a"), (b"authorization", value.encode())])


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
    ],
)
def test_anything_else_does_not(value: str) -> None:
    for keys in (Keys(admin=KEY), Keys(admin=None)):
        with pytest.raises(Unauthorized):
            keys.check_admin([(b"authorization", value.encode())])
        with pytest.raises(Unauthorized):
            keys.check_admin([])


def test_without_a_key_none_is_right() -> None:
    for value in (b"Bearer", b"Bearer ", b"Bearer None", b""):
        with pytest.raises(Unauthorized):
            Keys(admin=None).check_admin([(b"authorization", value)])


def test_the_first_of_several_keys_counts() -> None:
    headers = [(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer " + KEY.encode())]
    with pytest.raises(Unauthorized):
        Keys(admin=KEY).check_admin(headers)
