"""The log of a live server, and what no record may do to it."""

import json
import logging
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from app.observability.logs import JsonFormatter, TextFormatter, trace_id_of
from tests.conftest import MODELS, ROOT, Pixels, Start, base64_png, free_port, launch
from tests.processes import PATIENCE

TRACE, PARENT = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a-key-that-nobody-may-see"


def ended(process: subprocess.Popen[str]) -> str:
    """What a server that is told to stop has written."""
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=PATIENCE)[1]


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_line_is_one_object(start: Start, digits: Pixels, workers: int) -> None:
    process, client = start(models_dir=MODELS, log_format="json", workers=workers, queue_seconds=20)
    headers = {"X-Request-ID": "from-the-client:1", "traceparent": TRACEPARENT, "Authorization": f"Bearer {SECRET}"}
    picture = base64_png(digits[0])
    answer = client.post("/encode?model=mnist-2d", json={"images": [picture]}, headers=headers)
    refused = client.post("/encode?model=payload-in-the-query", json={"images": [picture]})
    client.get("/health/live")
    log = ended(process)
    lines = objects(log)
    assert {"app", "app.vae.catalog", "uvicorn.error", "app.requests"} <= {line["logger"] for line in lines}
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 300
        assert line["time"].endswith("Z")
    done, failed = [line for line in lines if line["logger"] == "app.requests"]
    assert done.pop("milliseconds") >= done.pop("queue_milliseconds") + done.pop("inference_milliseconds") - 0.01
    assert done.pop("bytes_in") == int(answer.request.headers["content-length"])
    assert done.pop("bytes_out") == len(answer.content)
    assert done.pop("time") <= failed["time"]
    assert done == {
        "level": "info",
        "logger": "app.requests",
        "message": "POST /encode 200",
        "request_id": "from-the-client:1",
        "trace_id": TRACEPARENT.split("-")[1],
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/encode",
        "operation": "encode",
        "status": 200,
        "model": "mnist-2d",
        "version": 2,
    }
    assert answer.headers["x-request-id"] == "from-the-client:1"
    assert (failed["status"], failed["problem"], failed["message"]) == (404, "unknown-model", "POST /encode 404")
    assert failed["request_id"] == refused.headers["x-request-id"]
    assert "model" not in failed
    for secret in (SECRET, picture[:40], "payload-in-the-query"):
        assert secret not in log


def test_text_is_one_line_a_request(start: Start) -> None:
    process, client = start(models_dir=MODELS)
    client.get("/sample/image?seed=1&n=2", headers={"X-Request-ID": "mine"})
    client.head("/sample/image?seed=1&n=2")
    log = ended(process)
    words = r"\S+Z INFO +app.requests: {} /sample/image 200 request_id={} client=127.0.0.1 operation=sample_image "
    words += r"model=mnist version=2 bytes_in=0 bytes_out={} milliseconds=[\d.]+"
    assert re.search(words.format("GET", "mine", r"\d{3,}"), log)
    assert re.search(words.format("HEAD", "[0-9a-f]{16}", "0"), log)
    assert log.count("app.requests") == 2
    assert "INFO     uvicorn.error: Application startup complete." in log


def test_at_warning_only_what_goes_wrong_is_told(start: Start) -> None:
    process, client = start(models_dir=MODELS, log_level="warning", queue_seconds=1e-9)
    client.get("/models")
    client.get("/nope")
    refused = client.get("/sample?n=5")
    assert refused.status_code == 504
    (line,) = ended(process).splitlines()
    assert " WARNING  app.requests: GET /sample 504 " in line
    assert f"request_id={refused.headers['x-request-id']}" in line
    assert "problem=deadline-exceeded" in line


def test_an_error_before_there_is_a_server_is_an_object_too() -> None:
    process = launch(port=free_port(), models_dir="/nowhere", log_format="json")
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    (line,) = objects(log)
    assert (line["level"], line["logger"]) == ("critical", "app")
    assert line["message"].startswith("/nowhere holds no bundle")


def test_warnings_are_records(tmp_path: object) -> None:
    program = (
        "from app.observability import logs; import warnings; logs.configure('info', 'json'); warnings.warn('careful')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = objects(done.stderr)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")


HOSTILE = "one\ntwo\r\x1b[31m\x00\u2028\u202e\x85 \ud800"


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    cause = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("app", logging.ERROR, __file__, 1, message, (), cause)


def test_nothing_that_a_client_wrote_ends_a_line() -> None:
    made = record(HOSTILE)
    made.fields = {"key": HOSTILE}
    text = TextFormatter().format(made)
    assert text.isprintable()
    text.encode()
    line = JsonFormatter().format(made)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == HOSTILE


def test_a_value_is_told_from_the_words_beside_it() -> None:
    made = record("GET / 200")
    made.fields = {"client": '192.0.2.1 status=500 "', "version": 2, "operation": "sample"}
    text = TextFormatter().format(made)
    assert text.endswith(r'app: GET / 200 client="192.0.2.1 status=500 \"" version=2 operation=sample')


def test_a_traceback_is_a_field_or_indented() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        made = record("it failed\n", error)
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith("it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    entry = json.loads(JsonFormatter().format(made))
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["message"] == "it failed"


@pytest.mark.parametrize("header", [b"00-%b-%b-01", b"00-%b-%b-00", b"cc-%b-%b-01", b"cc-%b-%b-01-what-comes-later"])
def test_a_traceparent_of_this_and_of_later_versions(header: bytes) -> None:
    assert trace_id_of(header % (TRACE, PARENT)) == TRACE.decode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00-%b-%b" % (TRACE, PARENT),
        b"00-%b-%b-01-more" % (TRACE, PARENT),
        b"cc-%b-%b-01more" % (TRACE, PARENT),
        b"ff-%b-%b-01" % (TRACE, PARENT),
        b"00-%b-%b-01" % (b"0" * 32, PARENT),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), PARENT),
        b"00-%b-%b-01\n" % (TRACE, PARENT),
        b"\xff" * 55,
    ],
)
def test_an_invalid_traceparent_names_no_trace(header: bytes) -> None:
    assert trace_id_of(header) is None
