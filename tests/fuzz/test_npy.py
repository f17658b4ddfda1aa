"""npy bodies that are truncated, oversized, mistyped or hostile: a problem document, one line in the log, no memory."""

import io
import json
import re
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.conftest import MODELS, ROOT, Start, npy
from tests.document import operations
from tests.processes import PATIENCE

HEADERS = {"Content-Type": "application/x-npy"}
PATHS = sorted(
    operation.path
    for operation in operations(json.loads((ROOT / "openapi.json").read_text(encoding="utf-8")))
    if "application/x-npy" in operation.body
)
GOOD = [npy(np.zeros((2, 28, 28), np.uint8)), npy(np.zeros((2, 32), np.float32)), npy(np.zeros((1, 28, 28, 1)))]


def header(text: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """An npy file with a header of one's own, and the length that it claims."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes((version, 0)) + size + text.encode("latin-1", "replace") + data


def described(descr: str = "'|u1'", fortran: str = "False", shape: str = "(1, 28, 28)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


truncated = st.sampled_from(GOOD).flatmap(lambda good: st.integers(0, len(good) - 1).map(lambda cut: good[:cut]))
oversized = st.builds(bytes.__add__, st.sampled_from(GOOD), st.binary(min_size=1, max_size=64))
data = st.binary(max_size=2000)
sizes = st.integers(-(2**70), 2**70).filter(lambda size: not 0 <= size <= 2000)
mistyped = st.builds(
    header,
    st.builds(described, descr=st.sampled_from(["'|O'", "'<i4'", "'<U9'", "'<c8'", "'|V8'", "'<M8[s]'", "'<f16'"])),
    data,
)
shaped = st.builds(header, sizes.map(lambda size: described(shape=f"({size}, 28, 28)")), data)
lying = st.builds(header, st.just(described()), data, st.sampled_from([1, 2]), st.integers(300, 65_000))
texts = st.one_of(
    st.text(max_size=300),
    st.builds(described, descr=st.text(max_size=20), fortran=st.text(max_size=20), shape=st.text(max_size=40)),
    st.sampled_from(["(" * 4000, "[" * 90 + "]" * 90, "-" * 4000 + "1", "9" * 4000, "{**{}}", "'\\d'", "\x00"]),
)
hostile = st.builds(header, texts, data, st.sampled_from([1, 2, 3, 9]))
BODIES = st.one_of(truncated, oversized, mistyped, shaped, lying, hostile, data)


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((1, 28, 28), np.uint8))
    return buffer.getvalue()


WORST = {
    "nothing": b"",
    "pickle": pickled(),
    "npz": zipped(),
    "deflated": zlib.compress(GOOD[0]),
    "a header of 4 GiB": header(described(), bytes(1000), version=2, length=2**32 - 1),
    "a header of 1 MiB": header(described() + " " * 2**20, bytes(784), version=2),
    "deep nesting": header("(" * 60_000),
    "a number of many digits": header(described(shape="(" + "9" * 3900 + ",)")),
    "longs of Python 2": header(described(shape="(3L, 9L)"), bytes(27)),
    "an escape that warns": header(described(descr=r"'\d'")),
    "2 GiB of nothing": header(described(shape="(2, 1073741824)"), bytes(2**20)),
    "no rows of a huge size": header(described(shape="(0, 1073741824)")),
    "1 MiB too much": GOOD[0] + bytes(2**20),
    "1 MiB of noise": np.random.default_rng(0).bytes(2**20),
    "structured": header(described(descr="[('a', '<f4'), ('b', '|O')]"), bytes(12)),
}


def check(answer: Any) -> None:
    """A 4xx with its problem document, and nothing of the body in it."""
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"].startswith("urn:vaeserve:problem:")
    assert len(answer.content) < 400


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
def test_bodies_are_refused_without_a_word(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str, body: bytes
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        check(client.post(path, content=body, headers=HEADERS))
    assert not warned
    assert not [record for record in caplog.records if record.name.partition(".")[0] not in ("httpx", "httpx2")]


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_the_worst_leave_one_line_each_and_no_memory(start: Start) -> None:
    process, client = start(models_dir=MODELS)

    def send_all() -> int:
        for body in WORST.values():
            for path in PATHS:
                check(client.post(path, content=body, headers=HEADERS))
        return len(WORST) * len(PATHS)

    sent = send_all()  # what is allocated once is there then
    before = resident(process)
    sent += sum(send_all() for _ in range(3))
    assert resident(process) - before < 8 * 2**20
    process.terminate()
    out, log = process.communicate(timeout=PATIENCE)
    lines = [line for line in (out + log).splitlines() if "/npy" in line or not re.match(r"\S+ INFO ", line)]
    assert len(lines) == sent
    assert all(re.match(r"\S+ INFO +app\.requests: POST /\w+/npy 4\d\d ", line) for line in lines)
