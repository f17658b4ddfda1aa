"""IDX files are read, checked and downloaded."""

import gzip
import hashlib
import http.server
import multiprocessing
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import Pixels
from tests.training.conftest import NAMES, TRAIN_IMAGES, idx, source_of
from training.data import load_dataset
from training.data.idx import LOCK, SOURCES, IdxFile, IdxOptions, IdxSource, parse_idx, read, read_idx
from training.errors import DataError

NAME = "some-images-idx3-ubyte"
ARRAY = np.random.default_rng(0).integers(0, 256, (300, 20, 20)).astype(np.uint8)
CONTENT = idx(ARRAY)
PACKED = gzip.compress(CONTENT)
FILE = IdxFile(NAME, hashlib.sha256(CONTENT).hexdigest())
PACKED_FILE = IdxFile(NAME, hashlib.sha256(PACKED).hexdigest(), packed=True)


# Parsing.


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_an_idx_file_gives_back_its_array(shape: list[int], random) -> None:
    array = np.frombuffer(random.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    parsed = parse_idx(idx(array))
    assert parsed.dtype == np.uint8
    assert parsed.shape == array.shape
    assert np.array_equal(parsed, array)


HOSTILE = {
    "empty": b"",
    "three bytes": b"\0\0\x08",
    "no magic": b"\x01\0\x08\x01\0\0\0\x01x",
    "floats": b"\0\0\x0d\x01\0\0\0\x01abcd",
    "gzip": PACKED,
    "a page of HTML": b"<!doctype html><html></html>",
    "no sizes": b"\0\0\x08\x03",
    "half a size": b"\0\0\x08\x01\0\0",
    "too little data": CONTENT[:-1],
    "too much data": CONTENT + b"\0",
    "sizes that overflow": b"\0\0\x08\x02" + b"\xff" * 8,
    "sizes whose product is zero modulo 2^64": b"\0\0\x08\x04" + b"\x80\0\0\0" * 4,
    "more dimensions than numpy has": b"\0\0\x08\x64" + b"\0\0\0\x01" * 100 + b"x",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        parse_idx(content)


@given(st.binary(max_size=60))
@example(b"\x03")
@settings(deadline=None)
def test_no_bytes_raise_anything_else(rest: bytes) -> None:
    try:
        array = parse_idx(b"\0\0\x08" + rest)
    except DataError:
        return
    assert array.nbytes <= len(rest)


# Reading.


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "fast": (f"{NAME}.gz", gzip.compress(CONTENT, 1)),
        "small": (f"{NAME}.gz", gzip.compress(CONTENT, 9, mtime=1)),
        "stored": (f"{NAME}.gz", gzip.compress(CONTENT, 0)),
        "two members": (f"{NAME}.gz", gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:])),
        "plain": (NAME, CONTENT),
    }.values(),
    ids=["fast", "small", "stored", "two members", "plain"],
)
def test_the_wrapper_does_not_matter(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert np.array_equal(read_idx(tmp_path, FILE, ()), ARRAY)


@pytest.mark.parametrize("name", [NAME, f"{NAME}.gz"])
def test_other_content_is_refused_by_the_files_name(tmp_path: Path, name: str) -> None:
    other = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    (tmp_path / name).write_bytes(gzip.compress(other) if name.endswith(".gz") else other)
    with pytest.raises(DataError, match=rf"{re.escape(name)} is not the expected file.*sha256"):
        read_idx(tmp_path, FILE, ())


@pytest.mark.parametrize(
    "content",
    [PACKED[: len(PACKED) // 2], b"<html>", b"", PACKED[:10] + b"\xff" * 100, PACKED[:-8] + b"\0" * 8],
    ids=["cut off", "not gzip", "empty", "no deflate stream", "wrong checksum"],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{NAME}.gz").write_bytes(content)
    with pytest.raises(DataError, match=f"{NAME}.gz"):
        read_idx(tmp_path, FILE, ())


def test_what_lies_there_is_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.gz").write_bytes(PACKED)
    with mirror() as server:
        read_idx(tmp_path, FILE, (server.url,))
    assert server.requests == []


# Files of which only the packed one can be checked.


@pytest.mark.parametrize("beside", [None, b"another file"])
def test_a_packed_sum_is_checked_and_the_packed_file_read(tmp_path: Path, beside: bytes | None) -> None:
    (tmp_path / f"{NAME}.gz").write_bytes(PACKED)
    if beside is not None:
        (tmp_path / NAME).write_bytes(beside)
    assert np.array_equal(read_idx(tmp_path, PACKED_FILE, ()), ARRAY)


def test_the_same_content_packed_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(CONTENT, 1))
    with pytest.raises(DataError, match=rf"{NAME}\.gz is not the expected file: it has another sha256"):
        read_idx(tmp_path, PACKED_FILE, ())


def test_a_plain_file_alone_is_refused_and_not_replaced_behind_ones_back(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    with mirror() as server, pytest.raises(DataError, match=rf"{NAME} cannot be checked.*put {NAME}\.gz beside it"):
        read_idx(tmp_path, PACKED_FILE, (server.url,))
    assert server.requests == []


def test_a_packed_file_is_downloaded(tmp_path: Path) -> None:
    with mirror() as server:
        assert np.array_equal(read_idx(tmp_path, PACKED_FILE, (server.url,)), ARRAY)


# Downloading.


@dataclass
class Mirror:
    """What a mirror serves under any path, how it misbehaves, and what it was asked."""

    content: bytes = PACKED
    ranges: bool = True
    status: int | None = None
    """Answer every request with this."""
    breaks_after: int | None = None
    """Break the connection after so many bytes of the body."""
    chunked: bool = False
    seconds: float = 0
    """Wait before answering."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of every request."""
    url: str = ""


@contextmanager
def mirror(**options) -> Iterator[Mirror]:
    state = Mirror(**options)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers["Range"]
            state.requests.append((self.path, asked))
            self.close_connection = True
            time.sleep(state.seconds)
            if state.status is not None:
                self.send_error(state.status)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if asked and state.ranges else 200)
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            else:
                self.send_header("Content-Length", str(len(body)))
            if asked and state.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.end_headers()
            self.wfile.write(body[: state.breaks_after])

        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_an_absent_file_is_downloaded_once(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist"
    with mirror() as server:
        for _ in range(2):
            assert np.array_equal(read_idx(folder, FILE, (server.url,)), ARRAY)
    assert server.requests == [(f"/{NAME}.gz", None)]
    assert files(folder) == [f"{NAME}.gz"]


def test_a_download_without_a_length_succeeds(tmp_path: Path) -> None:
    with mirror(chunked=True) as server:
        assert np.array_equal(read_idx(tmp_path, FILE, (server.url,)), ARRAY)


def test_a_begun_download_is_resumed(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.gz.part").write_bytes(PACKED[:1000])
    with mirror() as server:
        assert np.array_equal(read_idx(tmp_path, FILE, (server.url,)), ARRAY)
    assert server.requests == [(f"/{NAME}.gz", "bytes=1000-")]
    assert files(tmp_path) == [f"{NAME}.gz"]


def test_a_server_that_knows_no_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.gz.part").write_bytes(b"x" * 1000)
    with mirror(ranges=False) as server:
        assert np.array_equal(read_idx(tmp_path, FILE, (server.url,)), ARRAY)
    assert server.requests == [(f"/{NAME}.gz", "bytes=1000-")]


def test_a_whole_part_needs_no_more_bytes(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.gz.part").write_bytes(PACKED)
    with mirror() as server:
        assert np.array_equal(read_idx(tmp_path, FILE, (server.url,)), ARRAY)
    assert len(server.requests) == 1
    assert files(tmp_path) == [f"{NAME}.gz"]


def test_a_broken_connection_is_resumed_by_the_next_try(tmp_path: Path) -> None:
    with mirror(breaks_after=70_000) as server:
        with pytest.raises(DataError, match=rf"{NAME}\.gz is absent.*received 70000 bytes, expected {len(PACKED)}"):
            read_idx(tmp_path, FILE, (server.url,))
        assert files(tmp_path) == [f"{NAME}.gz.part"]
        server.breaks_after = None
        assert np.array_equal(read_idx(tmp_path, FILE, (server.url,)), ARRAY)
    assert [asked for _, asked in server.requests] == [None, "bytes=70000-"]


def test_a_broken_connection_is_resumed_by_the_next_mirror(tmp_path: Path) -> None:
    with mirror(breaks_after=70_000) as first, mirror() as second:
        assert np.array_equal(read_idx(tmp_path, FILE, (first.url, second.url)), ARRAY)
    assert second.requests == [(f"/{NAME}.gz", "bytes=70000-")]


def test_a_connection_that_breaks_without_a_length_is_a_data_error(tmp_path: Path) -> None:
    with mirror(chunked=True, breaks_after=50_000) as server, pytest.raises(DataError, match=f"{NAME}.gz"):
        read_idx(tmp_path, FILE, (server.url,))


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_second_mirror_helps_where_the_first_fails(tmp_path: Path, status: int) -> None:
    with mirror(status=status) as first, mirror() as second:
        assert np.array_equal(read_idx(tmp_path, FILE, (first.url, second.url)), ARRAY)
    assert len(first.requests) == len(second.requests) == 1


def test_the_second_mirror_is_left_alone_where_the_first_serves(tmp_path: Path) -> None:
    with mirror() as first, mirror() as second:
        read_idx(tmp_path, FILE, (first.url, second.url))
    assert second.requests == []


def test_where_every_mirror_fails_the_error_names_the_file_and_each_mirror(tmp_path: Path) -> None:
    with mirror(status=404) as first, mirror(status=503) as second, pytest.raises(DataError) as caught:
        read_idx(tmp_path, FILE, (first.url, second.url))
    message = str(caught.value)
    assert str(tmp_path / f"{NAME}.gz") in message
    assert first.url in message
    assert "404" in message
    assert second.url in message
    assert "503" in message


def test_a_refused_connection_is_a_data_error(tmp_path: Path) -> None:
    with mirror() as server:
        pass
    with pytest.raises(DataError, match=rf"{NAME}\.gz.*refused"):
        read_idx(tmp_path, FILE, (server.url,))


def test_a_mirror_that_serves_another_file_is_found_out(tmp_path: Path) -> None:
    with mirror(content=gzip.compress(idx(ARRAY + 1))) as server, pytest.raises(DataError, match=f"{NAME}.gz.*sha256"):
        read_idx(tmp_path, FILE, (server.url,))


EXECUTORS = {
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": lambda: ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")),
}


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_of_two_that_want_a_file_one_downloads_and_the_other_waits(tmp_path: Path, executor) -> None:
    with mirror(seconds=0.3) as server:
        pool: Executor
        with executor() as pool:
            tasks = [pool.submit(read_idx, tmp_path, FILE, (server.url,)) for _ in range(2)]
            assert all(np.array_equal(task.result(), ARRAY) for task in tasks)
    assert server.requests == [(f"/{NAME}.gz", None)]
    assert files(tmp_path) == [f"{NAME}.gz"]


def test_who_waited_for_a_download_that_failed_tries_in_turn(tmp_path: Path) -> None:
    with mirror(seconds=0.1, status=503) as server, ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(read_idx, tmp_path, FILE, (server.url,)) for _ in range(2)]
        assert all(isinstance(task.exception(), DataError) for task in tasks)
    assert len(server.requests) == 2


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with mirror() as server, pytest.raises(DataError, match=f"{NAME}.gz"):
        read_idx(tmp_path / "data", FILE, (server.url,))


# Data sets.


def test_a_data_set_has_both_splits_with_their_labels(data_dir: Path, digits: Pixels, labels: Pixels) -> None:
    train, test = read(IdxOptions(), data_dir)
    assert np.array_equal(train.images, digits[:TRAIN_IMAGES, None])
    assert np.array_equal(train.labels, labels[:TRAIN_IMAGES])
    assert np.array_equal(test.images, digits[TRAIN_IMAGES:, None])
    assert np.array_equal(test.labels, labels[TRAIN_IMAGES:])


def test_a_data_set_is_downloaded_file_by_file(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=str(data_dir / "mnist"))

        def log_message(self, *arguments) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        source = source_of(data_dir / "mnist", (f"http://127.0.0.1:{server.server_port}/",))
        monkeypatch.setitem(SOURCES, "mnist", source)
        dataset = load_dataset(IdxOptions(), tmp_path)
        server.shutdown()
    assert len(dataset.train.images) == TRAIN_IMAGES
    assert files(tmp_path / "mnist") == sorted(f"{name}.gz" for name in NAMES)


def write_packed(folder: Path, seed: int) -> IdxSource:
    """Four files of 28 x 28 noise in `folder`, and their source, which knows the sums of the packed files."""
    folder.mkdir()
    noise = np.random.default_rng(seed)
    for name, count in zip(NAMES, (6, 6, 4, 4), strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(noise.integers(0, 10, shape).astype(np.uint8))))
    sums = [hashlib.sha256((folder / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES]
    return IdxSource((), tuple(IdxFile(name, digest, packed=True) for name, digest in zip(NAMES, sums, strict=True)))


def test_the_kin_of_mnist_lie_in_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, key in enumerate(("fashion-mnist", "kmnist")):
        monkeypatch.setitem(SOURCES, key, write_packed(tmp_path / key, seed))
    for key in ("fashion-mnist", "kmnist"):
        dataset = load_dataset(IdxOptions(dataset=key), tmp_path)
        assert dataset.train.images.shape == (6, 1, 28, 28)
        assert dataset.test.images.shape == (4, 1, 28, 28)
        assert dataset.test.labels.shape == (4,)
    for name in NAMES:
        (tmp_path / "kmnist" / f"{name}.gz").replace(tmp_path / "fashion-mnist" / f"{name}.gz")
    with pytest.raises(DataError, match=r"fashion-mnist.*is not the expected file"):
        load_dataset(IdxOptions(dataset="fashion-mnist"), tmp_path)


# What the package ships; the fixtures replace only `mnist`.


@pytest.mark.parametrize(
    ("key", "title"), [("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST"), ("kmnist", "KMNIST")]
)
def test_a_source_has_a_title_mirrors_and_four_sums(key: str, title: str) -> None:
    options, source = IdxOptions(dataset=key), SOURCES[key]
    assert (options.key, options.title) == (key, title)
    four = source.files
    assert tuple(file.name for file in four) == NAMES
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in four)
    assert len({file.sha256 for file in four}) == 4
    assert all(mirror.endswith("/") for mirror in source.mirrors)


def test_the_kin_are_checked_by_their_packed_files() -> None:
    assert all(file.packed for key in ("fashion-mnist", "kmnist") for file in SOURCES[key].files)
    assert not any(file.packed for file in SOURCES["mnist"].files)


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(DataError, match=r"is absent and could not be downloaded: .*(proxy|SOCKS)"):
        read_idx(tmp_path, FILE, ("https://mirror.invalid/",))
