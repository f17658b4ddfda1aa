"""Attack a server that has the default settings, and watch whether it goes on serving everyone else.

    make attack

Sends over a hundred hostile inputs, one after the other: files and bodies that cost far more than their size, every
limit of docs/limits.md, requests that break the OpenAPI document, clients that are slow, silent, many or gone, foreign
pages, and bundles that are damaged on disk; then, to a server that speaks TLS, clients that misuse it. Meanwhile
another process asks for `/health/live` and encodes a digit, again and again. Prints each input with its answers, the
longest wait for `/health/live` and the largest memory of a worker; ends with status 1 if a bound is broken. `--write`
puts the table into SECURITY.md.
"""

import json
import math
import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import starmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx2
import typer
from rich import print as show

from bench import tls
from bench.serving import ROOT, digits, png, resident, started
from tests import hostile
from tests.absurd import is_not_finite
from tests.app.api.middleware import test_exchange as limits
from tests.live.test_tls import AUTHORITY, issue

PORT = 18095
KEY = "the-admin-key-of-the-attack"
MAX_LAG, MAX_MEMORY, MAX_SECONDS = 0.1, 600.0, 180.0
"""Bounds: seconds for the 99.9th percentile of all waits for `/health/live`, MB of a worker, and seconds of it all."""
ALLOWED = {503, 504}
"""Statuses of 500 and above that an attacker and a bystander may get."""
FAILED = "failed"
"""Start of the answer of a fuzzer that found a fault."""
ENCODE = "/encode?model=mnist-2d"
"""Where the bystander encodes a digit."""
_EVERY = 0.01
"""Seconds between two requests for `/health/live`."""

Answers = Counter[str]
Send = Callable[[httpx2.Client], Answers]


class Seen(NamedTuple):
    """A request of the bystander."""

    began: float
    """When it began, by `time.monotonic()`."""
    path: str
    seconds: float
    status: int
    """0 if there was no answer."""
    memory: float
    """MB of the largest worker behind it."""


@dataclass
class Attack:
    """One hostile input."""

    name: str
    send: Send
    answers: Answers = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    """Seconds that each request for `/health/live` took meanwhile."""
    memory: float = 0.0
    """Largest resident memory of a worker meanwhile, in MB."""


def once(send: Callable[[httpx2.Client], Any]) -> Send:
    """A request, sent once."""

    def run(client: httpx2.Client) -> Answers:
        try:
            return Counter([str(send(client).status_code)])
        except httpx2.HTTPError as error:
            return Counter([type(error).__name__])

    return run


def at_once(count: int, send: Callable[[httpx2.Client], Any]) -> Send:
    """A request, sent by so many clients at once."""

    def run(client: httpx2.Client) -> Answers:
        with ThreadPoolExecutor(count) as pool:
            return sum((done for done in pool.map(lambda _: once(send)(client), range(count))), Counter[str]())

    return run


def files(content: bytes, path: str = "/encode/files?model=emoji") -> Callable[[httpx2.Client], Any]:
    """An image file, uploaded."""
    return lambda client: client.post(path, files={"images": ("image", content)})


def body(path: str, value: Any, **headers: str) -> Callable[[httpx2.Client], Any]:
    """A JSON body."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda client: client.post(path, content=content, headers={"Content-Type": "application/json"} | headers)


def connections(count: int, content: bytes, seconds: float, *, path: str = "/health/live") -> Send:
    """So many connections that each send this and are silent then; the answer is that of `path` meanwhile."""

    def run(client: httpx2.Client) -> Answers:
        with ExitStack() as stack:
            for _ in range(count):
                with suppress(OSError):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", PORT), timeout=5))
                    connection.sendall(content)
            time.sleep(seconds)
            with httpx2.Client(base_url=client.base_url, timeout=60) as another:
                return once(lambda it: it.get(path))(another)

    return run


def head(path: str, size: int) -> bytes:
    """The head of a request with a body of `size` bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


def leaving(count: int, content: bytes) -> Send:
    """So many clients that send this and leave."""

    def run(client: httpx2.Client) -> Answers:
        for _ in range(count):
            with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=5) as connection:
                connection.sendall(content)
        return Counter(["left"])

    return run


def images() -> Iterator[Attack]:
    """Section R1 and R3 of the faults: image files."""
    for files_ in (hostile.read(), hostile.refused(), hostile.large()):
        for name, content in files_:
            yield Attack(name, once(files(content)))
    long = hostile.huge_png(2**24, 1, color=0)
    yield Attack("four PNGs with a side of 16 million pixels", at_once(4, files(long)))
    for name, content in hostile.large():
        yield Attack(f"eight at once: {name}", at_once(8, files(content)))
    yield Attack("14 JPEGs of 30 scans at once", at_once(14, files(hostile.many_scans(4096, 30))))
    yield Attack("14 that leave at once", leaving(14, _upload(hostile.many_scans(4096, 30))))
    slow = b64encode(hostile.many_scans(4096, 30)).decode()
    points = {"points": [{"image": slow}, *[{"label": digit} for digit in range(9)] * 1], "steps": 64}
    yield Attack(
        "six long interpolations from a slow JPEG", at_once(6, body("/interpolate/image?model=mnist-2d", points))
    )


def _upload(content: bytes) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + content + b"\r\n--x--\r\n"
    start = b"POST /encode/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return start + b"Content-Length: %d\r\n\r\n" % len(part) + part


def json_bodies() -> Iterator[Attack]:
    """R2 and R16: JSON."""
    keys = b"{" + b",".join(b'"%x":1' % number for number in range(3_000_000)) + b"}"
    yield Attack("3 million JSON keys", once(body("/decode", keys)))
    yield Attack("25,000 JSON keys", once(body("/decode", dict.fromkeys(map(str, range(25_000)), 1))))
    yield Attack("32 MB of spaces", once(body("/decode", b" " * (2**25))))
    yield Attack("31 MB of base64", once(body("/encode", {"images": [b64encode(bytes(23_000_000)).decode()]})))
    yield Attack("31 MB of escaped slashes", once(body("/encode", b'{"images":["' + b"\\/" * 15_500_000 + b'"]}')))
    yield Attack("31 MB of escapes", once(body("/encode", b'{"images":["' + rb"\u0041" * 5_000_000 + b'"]}')))
    yield Attack("30 MB of accents", once(body("/encode", b'{"images":["' + "é".encode() * 15_000_000 + b'"]}')))
    yield Attack("a million numbers", once(body("/decode", b'{"latents":[[' + b"0.123456789," * 1_000_000 + b"1]]}")))
    yield Attack("16 million numbers", once(body("/decode", b'{"latents":[[' + b"1," * 16_000_000 + b"1]]}")))
    yield Attack("a number of 31 million digits", once(body("/decode", b'{"latents":[[' + b"1" * 31_000_000 + b"]]}")))
    yield Attack("100,000 nested lists", once(body("/decode", b'{"latents":' + b"[" * 100_000)))
    tensor = {"name": "image", "shape": [256, 3, 32, 32], "datatype": "FP32", "data": [0.123456789] * 786_432}
    yield Attack("256 color images as JSON numbers", once(body("/v2/models/emoji.encoder/infer", {"inputs": [tensor]})))
    null = {"inputs": [{"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}], "outputs": None}
    yield Attack("null outputs", once(body("/v2/models/mnist-2d.decoder/infer", null)))
    yield Attack(
        "eight of 31 MB at once", at_once(8, body("/encode", {"images": [b64encode(bytes(23_000_000)).decode()]}))
    )


def clients() -> Iterator[Attack]:
    """R5, R8, R9, R12: connections, slow and leaving clients, foreign pages, invented addresses."""
    yield Attack("40 bodies of 31.9 MB that stall", connections(40, head("/encode", 2**25) + bytes(33_400_000), 2))
    yield Attack("2,000 idle connections", connections(2000, b"", 1))
    yield Attack("1,200 heads that never end", connections(1200, b"POST /encode HTTP/1.1\r\nHost: localhost\r\nX", 1))
    yield Attack("1,200 bodies that never end", connections(1200, head("/encode", 100), 1))
    yield Attack("300 clients that leave in the head", leaving(300, b"POST /encode HTTP/1.1\r\nHo"))
    yield Attack("300 clients that leave in the body", leaving(300, head("/encode", 1000) + b"{"))
    score = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()] * 64}).encode()
    request = head("/score?k=128", len(score)).replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
    yield Attack("100 clients that leave before 8,192 draws", leaving(100, request + score))
    yield Attack(
        "10,000 requests sent ahead",
        connections(1, b"GET /sample?n=256 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000, 1),
    )
    yield Attack("32 KB of header", once(lambda client: client.get("/models", headers={"X": "x" * 40_000})))
    yield Attack(
        "a name that is bound to loopback",
        once(lambda client: client.get("/models", headers={"Host": "attacker.example"})),
    )
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "http://attacker.example"}
    yield Attack(
        "a form of a foreign page",
        once(lambda client: client.post("/encode/files", files={"images": b"x"}, headers=foreign)),
    )
    yield Attack(
        "text of a foreign page",
        once(lambda client: client.post("/v2/models/mnist.decoder/infer", content=b"{}", headers=foreign)),
    )

    def invented(client: httpx2.Client) -> Answers:
        answers = Answers()
        for number in range(500):
            address = f"{number}" + "x" * 30_000
            answers += once(lambda it, address=address: it.get("/models", headers={"X-Forwarded-For": address}))(client)
        return answers

    yield Attack("500 invented addresses of 30 KB", invented)
    yield Attack(
        "64 grids of 256 samples at once", at_once(64, lambda client: client.get("/sample/image?n=256&model=emoji"))
    )
    yield Attack("64 scores of 8,192 draws at once", at_once(64, body("/score?k=128", score)))


def limit_cases() -> Iterator[Attack]:
    """All of docs/limits.md."""
    for what, (_, sends) in {**limits.IN_A_REQUEST, **limits.FIXED_CASES}.items():
        for number, send in enumerate(sends, 1):
            yield Attack(f"limit: {what}" + f" ({number})" * (len(sends) > 1), once(send))


def document(folder: Path) -> Iterator[Attack]:
    """Every operation, fuzzed by its description, with all checks of schemathesis."""

    def send(client: httpx2.Client) -> Answers:
        report = folder / "fuzzed.har"
        address, config = f"{str(client.base_url).rstrip('/')}/openapi.json", ROOT / "tests/fuzz/schemathesis.toml"
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", address]
        options = ["--phases=coverage,fuzzing", "--max-examples=4", "--exclude-path-regex=load$"]
        reports = ["--report=har", f"--report-har-path={report}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *options, *reports], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return Answers([f"{FAILED}: {done.stdout[-3000:]}"])
        return Answers(map(_fuzzed, json.loads(report.read_text())["log"]["entries"]))

    yield Attack("every operation of the document, fuzzed", send)


def _fuzzed(entry: dict[str, Any]) -> str:
    """The status in an entry of a HAR file, and whether the model overflowed, as it may with an absurd latent."""
    status, content = entry["response"]["status"], entry["response"]["content"].get("text", "")
    return "500, not finite" if status == 500 and is_not_finite(content) else str(status)


def bundles(models: Path) -> Iterator[Attack]:
    """R6 and R15: served bundles that are damaged on disk, and reloaded."""
    version = models / "mnist-2d" / max((models / "mnist-2d").iterdir()).name
    auth = {"Authorization": f"Bearer {KEY}"}

    def damaged(name: str, damage: Callable[[Path], Any]) -> Attack:
        def send(client: httpx2.Client) -> Answers:
            backup = version.with_name("backup")
            shutil.copytree(version, backup)
            damage(version)
            answers = once(lambda it: it.post("/models/reload", headers=auth))(client)
            answers += once(lambda it: it.get("/sample?n=1&model=mnist-2d"))(client)
            shutil.rmtree(version)
            backup.rename(version)
            return answers

        return Attack(f"reload: {name}", send)

    yield damaged("a truncated graph", lambda path: os.truncate(path / "encoder.onnx", 1000))
    yield damaged("a graph that is gone", lambda path: (path / "decoder.onnx").unlink())
    yield damaged("a manifest of junk", lambda path: (path / "manifest.json").write_bytes(b"\xff" * 1000))
    yield damaged("a named pipe for a manifest", _pipe)
    yield damaged("a manifest of 100 MB", lambda path: os.truncate(path / "manifest.json", 100_000_000))


def _pipe(path: Path) -> None:
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def over_tls() -> Iterator[Attack]:
    """Clients that misuse TLS, each of which brings its own way to connect."""

    def attack(name: str, send: tls.Send) -> Attack:
        return Attack(f"TLS: {name}", lambda _: send())

    yield from starmap(attack, tls.inputs(PORT, _trusted()))


def _trusted() -> ssl.SSLContext:
    """The context of a client that trusts the certificate of the attacked server."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def watch(pipe: Connection, pid: int, authority: str | None) -> None:
    """Ask for `/health/live` and encode a digit until told to stop; then send a list of what was seen.

    `authority` is in PEM, and given if the server speaks TLS. Each request has a connection of its own.
    """
    context = None if authority is None else ssl.create_default_context(cadata=authority)
    digit = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()]})
    seen, turn = list[Seen](), 0
    pipe.send("begun")
    while not pipe.poll():
        path = ENCODE if turn % 5 == 0 else "/health/live"
        began = time.monotonic()
        try:
            connection = (
                HTTPConnection("127.0.0.1", PORT, timeout=60)
                if context is None
                else HTTPSConnection("127.0.0.1", PORT, timeout=60, context=context)
            )
            if path == "/health/live":
                connection.request("GET", path)
            else:
                connection.request("POST", path, digit, {"Content-Type": "application/json"})
            status = connection.getresponse().status
            connection.close()
        except (OSError, HTTPException):
            status = 0
        took = time.monotonic() - began
        seen.append(Seen(began, path, took, status, max(map(resident, _workers(pid)))))
        turn += 1
        time.sleep(_EVERY)
    pipe.send(seen)


def _workers(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    python = [int(child) for child in children if b"python" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return python or [pid]


def run(attacks: list[Attack], pid: int, *, is_tls: bool) -> list[Seen]:
    """Send every attack, and return what was seen meanwhile."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    authority = AUTHORITY.cert_pem.bytes().decode() if is_tls else None
    watcher = context.Process(target=watch, args=(theirs, pid, authority))
    watcher.start()
    ours.recv()  # it has begun
    spans = []
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{PORT}", timeout=90, limits=httpx2.Limits(max_keepalive_connections=0)
    ) as client:
        for attack in attacks:
            began = time.monotonic()
            attack.answers = attack.send(client)
            time.sleep(0.05)
            spans.append((began, time.monotonic()))
    ours.send(None)
    seen: list[Seen] = ours.recv()
    watcher.join()
    for attack, (began, ended) in zip(attacks, spans, strict=True):
        within = [it for it in seen if it.began < ended and it.began + it.seconds > began]
        attack.lags = waits(within)
        attack.memory = max((it.memory for it in within), default=0.0)
    return seen


def waits(seen: list[Seen]) -> list[float]:
    """Seconds of each request for `/health/live`, ascending."""
    return sorted(it.seconds for it in seen if it.path == "/health/live")


def percentile(ascending: list[float], share: float) -> float:
    return ascending[math.ceil(share * len(ascending)) - 1]


def broken(attacks: list[Attack], seen: list[Seen]) -> list[str]:
    """The bounds that do not hold."""
    found = []
    if (lag := percentile(waits(seen), 0.999)) > MAX_LAG:
        found.append(f"the 99.9th percentile of the waits for /health/live is {1e3 * lag:.0f} ms")
    if (memory := max(it.memory for it in seen)) > MAX_MEMORY:
        found.append(f"a worker took {memory:.0f} MB")
    fine = {"/health/live": {200}, ENCODE: {200, *ALLOWED}}
    if lost := Counter((it.path, it.status) for it in seen if it.status not in fine[it.path]):
        found.append(f"requests of bystanders were lost: {dict(lost)}")
    for attack in attacks:
        wrong = [it for it in attack.answers if _is_server_error(it) or it.startswith(FAILED)]
        found += [f"{attack.name}: {answer}" for answer in wrong]
    return found


def _is_server_error(answer: str) -> bool:
    return answer.isdigit() and int(answer) >= 500 and int(answer) not in ALLOWED


def rows(attacks: list[Attack]) -> Iterator[tuple[str, str, str, str]]:
    """A row of the table for each attack."""
    for attack in attacks:
        answers = ", ".join(f"{status} x {n}" if n > 1 else status for status, n in sorted(attack.answers.items()))
        lag = f"{1e3 * max(attack.lags):.0f}" if attack.lags else "-"
        yield attack.name, answers, lag, f"{attack.memory:.0f}"


def attacked(workers: int, only: str, *, is_tls: bool) -> tuple[list[Attack], list[Seen]]:
    """Start a server and attack it; without an input whose name contains `only`, do nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        shutil.copytree(ROOT / "models", models)
        groups = (over_tls(),) if is_tls else _plain(models)
        attacks = [attack for group in groups for attack in group if only in attack.name]
        if not attacks:
            return [], []
        settings = {"VAE_PORT": str(PORT), "VAE_WORKERS": str(workers), "VAE_MODELS_DIR": str(models)}
        settings |= {"VAE_LOG_LEVEL": "critical", "VAE_ADMIN_KEY": KEY}
        if is_tls:
            chain, key = issue(folder)
            settings |= {"VAE_TLS_CERTIFICATE": str(chain), "VAE_TLS_KEY": str(key)}
        context, command = _trusted() if is_tls else None, [sys.executable, "-m", "app"]
        with started(command, PORT, "/health/ready", context=context, **settings) as process:
            return attacks, run(attacks, process.pid, is_tls=is_tls)


def _plain(models: Path) -> tuple[Iterator[Attack], ...]:
    return images(), json_bodies(), clients(), limit_cases(), document(models.parent), bundles(models)


def _in_words(seen: list[Seen], how: str) -> str:
    lags = waits(seen)
    median, rare, longest = (1e3 * percentile(lags, share) for share in (0.5, 0.999, 1.0))
    return (
        f"Of {len(lags)} waits for `/health/live` {how} TLS the median is {median:.1f} ms, the 99.9th percentile"
        f" {rare:.0f} ms, and the longest {longest:.0f} ms; the largest memory of a worker is"
        f" {max(it.memory for it in seen):.0f} MB."
    )


def main(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the server.")] = 1,
    only: Annotated[str, typer.Option(help="Only inputs whose name contains this.")] = "",
    write: Annotated[bool, typer.Option(help="Put the table into SECURITY.md.")] = False,
) -> None:
    """Attack a server, and print what it answered."""
    began = time.monotonic()
    runs = [attacked(workers, only, is_tls=is_tls) for is_tls in (False, True)]
    seconds = time.monotonic() - began
    attacks = [attack for found, _ in runs for attack in found]
    lines = list(rows(attacks))
    for name, answers, lag, memory in lines:
        print(f"{lag:>5} ms {memory:>4} MB  {name}: {answers}")
    faults = [sentence for found, seen in runs if found for sentence in broken(found, seen)]
    if seconds > MAX_SECONDS:
        faults.append(f"the inputs took {seconds:.0f} s")
    summary = f"{len(attacks)} inputs in {seconds:.0f} s, {workers} worker(s)."
    for (found, seen), how in zip(runs, ("without", "with"), strict=True):
        if found:
            summary += f" {_in_words(seen, how)}"
    show(summary)
    for sentence in faults:
        show(f"[red]{sentence}")
    if write:
        _write(lines, summary)
    sys.exit(1 if faults else 0)


def _write(lines: list[tuple[str, str, str, str]], summary: str) -> None:
    path = ROOT / "SECURITY.md"
    before, _, rest = path.read_text().partition("<!-- attack -->\n")
    _, _, after = rest.partition("<!-- /attack -->")
    table = ["| input | answers | longest wait, ms | memory, MB |", "|---|---|--:|--:|"]
    table += [f"| {' | '.join(line)} |" for line in lines]
    path.write_text(f"{before}<!-- attack -->\n{summary}\n\n" + "\n".join(table) + f"\n<!-- /attack -->{after}")


if __name__ == "__main__":
    typer.run(main)
