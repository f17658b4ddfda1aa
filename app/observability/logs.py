"""The log on stderr: one line per record, as text or as JSON.

A record made while a request is handled carries the ids of that request. Text from clients is escaped, so that it can
not end a line.
"""

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal

Format = Literal["text", "json"]


_TRACEPARENT = re.compile(
    rb"(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
"""A valid `traceparent` header: version 00 ends after its four fields, later versions may have more."""


_ids: ContextVar[dict[str, str | None] | None] = ContextVar("ids", default=None)


def identify(request_id: str, trace_id: str | None) -> None:
    """Put these ids into every record that this context makes from now on: `trace_id` is None outside of a trace."""
    _ids.set({"request_id": request_id, "trace_id": trace_id})


def trace_id_of(traceparent: bytes) -> str | None:
    """Trace id in a `traceparent` header, 32 hexadecimal digits; None if the header is invalid.

    The format is that of W3C Trace Context, https://www.w3.org/TR/trace-context/.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None else found[1].decode()


def configure(level: str, format: Format) -> None:
    """Send the records of all loggers to stderr, from `level` upwards."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # unused


def log(logger: logging.Logger, level: int, message: str, fields: dict[str, Any]) -> None:
    """Log a message with fields, without the file and line of the caller, which are slow to find."""
    logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None, extra={"fields": fields}))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    Its members are `time` (RFC 3339, UTC), `level`, `logger`, `message`, the fields of the record, and `exception`, the
    traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in ASCII characters."""
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _encode(entry)


class TextFormatter(logging.Formatter):
    """Formats a record as time, level, logger, message, and the fields that are not in the message as `name=value`.

    A traceback follows, indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of the traceback."""
        fields = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items() if name not in _SHOWN)
        line = _printable(f"{record.getMessage().strip()} {fields}".rstrip())
        text = f"{_time(record)} {record.levelname:8} {record.name}: {line}"
        if record.exc_info:
            text += "".join(f"\n    {_printable(part)}" for part in self.formatException(record.exc_info).splitlines())
        return text


_encode = json.JSONEncoder(default=str).encode
_SEVERAL_WORDS = re.compile('[ ="]')
_SHOWN = {"method", "path", "status"}
"""Fields that the message of a request already contains."""


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The ids of the request and the fields of the record, without None values."""
    named = {**(_ids.get() or {}), **getattr(record, "fields", {})}
    return {name: value for name, value in named.items() if value is not None}


def _word(value: Any) -> str:
    """A value, quoted if it could be mistaken for more than one word."""
    text = str(value)
    return _encode(text) if _SEVERAL_WORDS.search(text) else text


def _printable(text: str) -> str:
    """The text, with control characters escaped: a terminal and a reader of lines see printable characters only."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
