"""Base64 as encoders write it, and what is none."""

import base64
import io
import textwrap
import time
from urllib.parse import parse_qs, urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.codecs.base64 import read_base64
from app.errors import InvalidInput

BYTES = bytes(range(256)) * 5 + b"\xfb\xff"
TEXT = base64.b64encode(BYTES).decode()
URL_SAFE = base64.urlsafe_b64encode(BYTES).decode()
assert TEXT.endswith("==")
assert "+" in TEXT

READ = {
    "as it is": TEXT,
    "a data URL": f"data:image/png;base64,{TEXT}",
    "a data URL in capitals, on lines": f" \nDATA:image/png;BASE64,\r\n{base64.encodebytes(BYTES).decode()}",
    "MIME": base64.encodebytes(BYTES).decode(),
    "PEM": "\r\n".join(textwrap.wrap(TEXT, 64)) + "\r\n",
    "indented": textwrap.indent(base64.encodebytes(BYTES).decode(), "    "),
    "tabs": textwrap.indent(base64.encodebytes(BYTES).decode(), "\t"),
    "lines that a shell joined": " ".join(textwrap.wrap(TEXT, 76)),
    "no padding": TEXT.rstrip("="),
    "padding on a line of its own": TEXT.rstrip("=") + "\n=",
    "URL-safe": URL_SAFE,
    "URL-safe without padding": URL_SAFE.rstrip("="),
    "URL-safe on lines": "\n".join(textwrap.wrap(URL_SAFE, 76)).rstrip("="),
    "half of its padding": TEXT[:-1],
}


@pytest.mark.parametrize("kind", READ)
def test_what_has_one_meaning_is_read(kind: str) -> None:
    assert read_base64(READ[kind]) == BYTES


REFUSED = {
    "a foreign character": (TEXT[:10] + "!" + TEXT[11:], "from character 11 on"),
    "a letter of another script": (TEXT[:10] + "é" + TEXT[11:], "from character 11 on"),
    "half of a surrogate pair": (TEXT[:10] + "\ud800", "from character 11 on"),
    "behind a prefix": ("data:image/png;base64,QUJD*", "from character 27 on"),
    "a percent code": (TEXT[:-1] + "%3D", f"from character {len(TEXT)} on"),
    "a data URL without a comma": ("data:" + TEXT, "from character 5 on"),
    "bytes as Python shows them": (f"b'{TEXT}'", "from character 2 on"),
    "two texts": (TEXT + TEXT, f"from character {len(TEXT) - 1} on: padding in the middle"),
    "padding alone": ("==", "no length of base64"),
    "too much padding": (TEXT + "=", "no length of base64"),
    "a character too few": (TEXT.rstrip("=")[:-1], "no length of base64"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_none_or_several_is_named_and_not_repeated(kind: str) -> None:
    text, words = REFUSED[kind]
    with pytest.raises(InvalidInput, match=r"not base64") as refusal:
        read_base64(text)
    assert words in refusal.value.detail
    assert len(refusal.value.detail) < 100


@given(st.binary(min_size=1, max_size=400), st.booleans())
def test_a_plus_that_a_form_decoded_is_never_left_out(content: bytes, padded: bool) -> None:
    text = base64.b64encode(content).decode()
    sent = urlencode({"image": text if padded else text.rstrip("=")}).replace("%2B", "+")
    received = parse_qs(sent)["image"][0]
    try:
        assert read_base64(received) == content
    except InvalidInput:
        assert " " in received


@given(st.binary(min_size=1, max_size=300), st.data())
def test_line_breaks_anywhere_change_nothing(content: bytes, data: st.DataObject) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(content).decode()
        for padded in (text, text.rstrip("=")):
            at = data.draw(st.integers(0, len(padded)))
            assert read_base64(padded[:at] + data.draw(st.sampled_from("\n\r\t\f\v")) + padded[at:]) == content


def test_long_texts_are_read_in_pieces_of_which_none_takes_long() -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20 + 1)
    for text in (base64.b64encode(content).decode(), base64.encodebytes(content).decode()):
        assert read_base64(text) == content
    for hostile in (
        "=" * 2**24,
        " " * 2**24 + "=",
        "A " * 2**23 + "AAA",
        "\n \r" * 2**22,
        "data:" * 2**20,
        "A" * 2**24 + "!",
    ):
        began = time.process_time()
        with pytest.raises(InvalidInput):
            read_base64(hostile)
        assert time.process_time() - began < 1  # some hundredths


def test_the_standard_form_takes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.codecs.base64._standard", None)
    buffer = io.BytesIO()
    Image.new("L", (28, 28)).save(buffer, "PNG")
    for text in (TEXT, base64.b64encode(buffer.getvalue()).decode(), f"data:image/png;base64,{TEXT}"):
        assert read_base64(text)
