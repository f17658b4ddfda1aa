"""Hostile inputs of a server that speaks TLS, for `bench.attack`."""

import shutil
import socket
import ssl
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

Answers = Counter[str]
Send = Callable[[], Answers]

HOST = "127.0.0.1"
ONE_ADDRESS = "127.0.0.2"
"""The address of all clients of an input, which are one client for the server's limits unless it is loopback."""
_SECONDS = 2.0
"""Seconds that an input goes on which has no natural end."""
_THREADS = 8


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


LIVE = get("/health/live", "Connection: close")
PATIENCE = 30.0
"""Maximum seconds for one operation on a socket."""


def inputs(port: int, trusted: ssl.SSLContext) -> Iterator[tuple[str, Send]]:
    """The name of each input, and what sends it to the port; `trusted` is the context of a well-behaved client."""
    hello = client_hello(trusted)
    held, secure = partial(_held, port, trusted), partial(_secure, port, trusted)
    many, raw = partial(_crowd, _THREADS), partial(_raw, port)
    yield "2,000 connections that never speak", lambda: held(2000, b"", rate=1000)
    yield "2,000 connections that send a byte", lambda: held(2000, hello[:1], rate=1000)
    yield "2,000 half handshakes", lambda: held(2000, hello[: len(hello) // 2], rate=1000)
    yield "600 first messages of handshakes that never end", lambda: held(600, hello, rate=300)
    yield "a record of 64 KB", lambda: many(100, lambda: raw(b"\x16\x03\x01\xff\xff" + bytes(65_535)))
    yield "a first message of 16 MB", lambda: many(20, lambda: raw(_long_hello(2**24 - 1)))
    yield "bytes that are no handshake", lambda: many(300, lambda: raw(bytes(range(256)) * 64))
    yield "plain HTTP to the port of TLS", lambda: many(300, lambda: raw(LIVE))
    yield "offers of TLS 1.1", lambda: many(100, lambda: _secure(port, _old(), lambda _: "accepted"))
    yield "renegotiations", lambda: many(4, lambda: _renegotiation(port))
    yield "handshakes that end right after", lambda: many(300, lambda: secure(lambda _: "done"))
    yield "as many handshakes as eight clients can make", lambda: _during(_SECONDS, lambda: secure(lambda _: "done"))
    yield "clients that are gone without an alert, in a body", lambda: many(300, lambda: secure(_gone_in_a_body))
    yield "clients that are gone before their answer", lambda: many(300, lambda: secure(_gone_before_answer))
    yield "a request in records of one byte", lambda: many(16, lambda: secure(_byte_by_byte))
    yield "40 clients that read nothing of a large answer", lambda: _unread(40, secure)
    yield "200 connections of one address", lambda: _open(200, port, trusted)
    yield "1,100 that never close after their answer", lambda: _never_closed(1100, port, trusted)


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=HOST).do_handshake()
    return outgoing.read()


def _long_hello(size: int) -> bytes:
    """The start of a first message of so many bytes, in records of 16 KiB."""
    message = b"\x01" + size.to_bytes(3, "big") + b"\x03\x03" + bytes(2**18)
    pieces = [message[at : at + 2**14] for at in range(0, len(message), 2**14)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def _old() -> ssl.SSLContext:
    """A client that offers TLS 1.1 at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _crowd(threads: int, count: int, send: Callable[[], str]) -> Answers:
    """Send `count` times, from so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        return Counter(pool.map(lambda _: send(), range(count)))


def _during(seconds: float, send: Callable[[], str]) -> Answers:
    """Send again and again, from all threads."""
    end = time.monotonic() + seconds

    def repeat(_: int) -> Answers:
        answers = Answers()
        while time.monotonic() < end:
            answers[send()] += 1
        return answers

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(repeat, range(_THREADS)), Answers())


def _connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE)
    connection.bind((ONE_ADDRESS, 0))
    connection.connect((HOST, port))
    return connection


def _raw(port: int, content: bytes) -> str:
    """Send bytes without TLS, and read until the server closes."""
    try:
        with _connect(port) as connection:
            with suppress(ConnectionError):
                connection.sendall(content)
            while received := connection.recv(65_536):
                if received.startswith(b"HTTP"):
                    return "answered"
        return "closed"
    except ConnectionError:
        return "closed"
    except OSError as error:
        return type(error).__name__


def _secure(
    port: int,
    context: ssl.SSLContext,
    act: Callable[[ssl.SSLSocket], str],
    *,
    receive_buffer: int | None = None,
) -> str:
    """What a client of TLS says of itself, or the name of its error."""
    try:
        with (
            _connect(port, receive_buffer=receive_buffer) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as secure,
        ):
            return act(secure)
    except OSError as error:
        return type(error).__name__


def _status(secure: ssl.SSLSocket) -> str:
    return secure.recv(65_536)[9:12].decode() or "closed"


def _ask(port: int, trusted: ssl.SSLContext, request: bytes = LIVE) -> str:
    def act(secure: ssl.SSLSocket) -> str:
        secure.sendall(request)
        return _status(secure)

    return _secure(port, trusted, act)


def _held(port: int, trusted: ssl.SSLContext, count: int, content: bytes, *, rate: float) -> Answers:
    """Open `count` connections, `rate` a second, that send this and no more; the answers are those of other clients."""
    answers, began = Answers(), time.monotonic()
    with ExitStack() as stack:
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            with suppress(OSError):
                stack.enter_context(connection := _connect(port))
                connection.sendall(content)
            if number % 100 == 99:
                answers[_ask(port, trusted)] += 1
    return answers


def _gone_in_a_body(secure: ssl.SSLSocket) -> str:
    secure.sendall(get("/encode", "Content-Length: 1000", method="POST") + b"{")
    return "left"


def _gone_before_answer(secure: ssl.SSLSocket) -> str:
    secure.sendall(get("/sample?n=256"))
    return "left"


def _byte_by_byte(secure: ssl.SSLSocket) -> str:
    for byte in get("/health/live", "Connection: close", "X: " + "x" * 2000):
        secure.sendall(bytes((byte,)))
    return _status(secure)


def _unread(count: int, secure: Callable[..., str]) -> Answers:
    def act(connection: ssl.SSLSocket) -> str:
        connection.sendall(get("/sample/npy?n=256&model=emoji") * 8)
        time.sleep(_SECONDS)
        return "left"

    with ThreadPoolExecutor(count) as pool:  # 20 a second: two cores are busy with more handshakes, on either side
        answers = []
        for _ in range(count):
            answers.append(pool.submit(secure, act, receive_buffer=4096))
            time.sleep(0.05)
    return Counter(answer.result() for answer in answers)


def _open(count: int, port: int, trusted: ssl.SSLContext) -> Answers:
    """Keep connections open, ask on each, and ask on each again."""
    answers = Answers()
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            plain = stack.enter_context(_connect(port))
            opened.append(stack.enter_context(trusted.wrap_socket(plain, server_hostname=HOST)))
        for _ in range(2):
            for connection in opened:
                connection.sendall(get("/health/live"))
                answers[_status(connection)] += 1
    return answers


def _never_closed(count: int, port: int, trusted: ssl.SSLContext) -> Answers:
    """Ask the server to close, and never close in turn; the answers are those of others."""
    answers = Answers()
    with ExitStack() as stack:
        for number in range(count):
            plain = stack.enter_context(_connect(port))
            with suppress(OSError):
                secure = stack.enter_context(trusted.wrap_socket(plain, server_hostname=HOST))
                secure.sendall(LIVE)
            if number % 100 == 99:
                answers[_ask(port, trusted, get("/sample?n=1", "Connection: close"))] += 1
    return answers


def _renegotiation(port: int) -> str:
    """Ask for a second handshake within a connection, which only the command of OpenSSL can."""
    if shutil.which("openssl") is None:
        return "no openssl"
    command = ["openssl", "s_client", "-connect", f"{HOST}:{port}", "-tls1_2"]
    done = subprocess.run(command, input=b"R\n" * 50, capture_output=True, timeout=PATIENCE, check=False)
    return "refused" if b"no renegotiation" in done.stderr else "allowed"
