"""The text formats of metrics, and which of them a scraper's Accept header asks for."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

Format = tuple[Callable[[Collector], bytes], str]
"""What writes the metrics, and the Content-Type."""

_PLAIN: Format = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
"""The format that every scraper reads."""
_FORMATS: dict[tuple[str, str], Format] = {
    ("text/plain", ""): _PLAIN,
    ("text/plain", "0.0.4"): _PLAIN,
    ("text/plain", "1.0.0"): (generate_latest, CONTENT_TYPE_PLAIN_1_0_0),
    ("application/openmetrics-text", ""): (openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST),
    ("application/openmetrics-text", "1.0.0"): (openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST),
    ("text/*", ""): _PLAIN,
    ("*/*", ""): _PLAIN,
}
"""By media type and version."""


def accepted_format(header: str) -> Format:
    """The format with the greatest weight in an Accept header, the first of several; the plain one if it has none."""
    found: Format | None = None
    greatest = 0.0
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        values = {key: value.strip('"') for key, _, value in (it.partition("=") for it in parameters)}
        known, weight = _FORMATS.get((name, values.get("version", ""))), _weight(values.get("q", "1"))
        if known is not None and weight > greatest:
            found, greatest = known, weight
    return found or _PLAIN


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
