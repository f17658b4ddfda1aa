"""The log: a line a record on stderr, as text or as JSON.

A record made while a request is answered carries the request's id. Whatever a client wrote is escaped: it ends no line.
"""

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

Format = Literal["text", "json"]


class RequestIds(NamedTuple):
    """What log records and their readers correlate a request by."""

    request_id: str
    """The client's X-Request-ID, or one that was made up."""
    trace_id: str | None
    """W3C's trace id, 32 hexadecimal digits; None if the request is part of no trace."""


_request: ContextVar[RequestIds | None] = ContextVar("request", default=None)


def identify(request_id: str, trace_id: str | None) -> None:
    """Put these ids into every record that this context makes from now on."""
    _request.set(RequestIds(request_id, trace_id))


def configure(level: str, format: Format) -> None:
    """Send everything that any logger has to say to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def log(logger: logging.Logger, level: int, message: str, fields: dict[str, Any]) -> None:
    """Make a record that has fields, but does not tell where in the code it was made: to find out takes long."""
    logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None, extra={"fields": fields}))


class JsonFormatter(logging.Formatter):
    """One JSON object a record: `time` (RFC 3339, UTC), `level`, `logger`, `message`, the fields that the record has,
    and `exception`, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, in ASCII."""
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
    """Time, level, logger and message, then the fields that are not in it as `name=value`; a traceback follows,
    indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items() if name not in _SAID)
        line = _printable(f"{record.getMessage().strip()} {fields}".rstrip())
        text = f"{_time(record)} {record.levelname:8} {record.name}: {line}"
        if record.exc_info:
            text += "".join(f"\n    {_printable(part)}" for part in self.formatException(record.exc_info).splitlines())
        return text


_encode = json.JSONEncoder(default=str).encode
_SAID = {"method", "path", "status"}
"""What the message of a request tells."""
_FORMATTERS: dict[Format, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The request that the record is about, and what else it has, without what is None."""
    request, fields = _request.get(), getattr(record, "fields", {})
    named = {**request._asdict(), **fields} if request else fields
    return {name: value for name, value in named.items() if value is not None}


def _word(value: Any) -> str:
    """A value that can be told from the words beside it."""
    text = str(value)
    return _encode(text) if any(c in text for c in ' ="') else text


def _printable(text: str) -> str:
    """The text, where a terminal or a reader of lines would see anything but characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
