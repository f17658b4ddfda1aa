"""The exception tree. Each class has an HTTP status and problem slug; messages go to the client, without its input.

VaeError
├── BadRequest 400
├── Unauthorized 401
├── Forbidden 403
├── ForeignPage 403
├── NotFound 404
│   └── UnknownModel
├── MethodNotAllowed 405
├── RequestTimeout 408
├── Conflict 409
├── BodyTooLarge 413
├── UnsupportedMediaType 415
├── InvalidInput 422
├── BundleRefused 422
├── RateExceeded 429
├── HeadersTooLarge 431
├── Overloaded 503
├── DeadlineExceeded 504
├── InferenceFailed 500
│   └── NotFinite
├── StartupError (ends the process; never a response)
│   ├── BundleError
│   └── ExecutionProviderError
└── CommandError (ends a command; never a response)
    └── UsageError
"""

from typing import ClassVar

REFUSALS = {401, 403, 408, 413, 429, 431, 503, 504}
"""Statuses of refused requests: not allowed, too large, too slow or too many, or the server is busy or out of time. The
other statuses report mistakes in a request, or failures of the server."""


class VaeError(Exception):
    """The root of all errors that this package raises."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    failure: ClassVar[str | None] = None
    """The detail that clients are given of a failure of the server (500), whose message stays in its log."""


class BadRequest(VaeError):
    """The body cannot be parsed."""

    status, slug, title = 400, "bad-request", "Unparseable request body"


class Unauthorized(VaeError):
    """The request carries no key, or an unknown one."""

    status, slug, title = 401, "unauthorized", "Missing or wrong key"


class Forbidden(VaeError):
    """The key is known, but does not allow this request."""

    status, slug, title = 403, "forbidden", "Not allowed with this key"


class ForeignPage(VaeError):
    """A web page of another origin sent the request, or its host name is unknown."""

    status, slug, title = 403, "foreign-page", "Not allowed for pages of other sites"


class NotFound(VaeError):
    """There is nothing at this path."""

    status, slug, title = 404, "not-found", "Not found"


class UnknownModel(NotFound):
    """There is no model of this name, or no such version of it."""

    slug, title = "unknown-model", "Unknown model or version"


class MethodNotAllowed(VaeError):
    """The path exists, but not for this method."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(VaeError):
    """The request took too long to arrive."""

    status, slug, title = 408, "request-timeout", "Request took too long to arrive"


class Conflict(VaeError):
    """The state of the server, or the way it was started, does not allow the request."""

    status, slug, title = 409, "conflict", "Conflict with the state of the server"


class BodyTooLarge(VaeError):
    """The body exceeds the limit; reading stopped there."""

    status, slug, title = 413, "body-too-large", "Request body too large"


class UnsupportedMediaType(VaeError):
    """The operation does not accept the content type of the body."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidInput(VaeError):
    """A value in the request is invalid; `pointer` is the JSON pointer to it, such as `/images/3`."""

    status, slug, title = 422, "invalid-input", "Invalid input"

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail, self.pointer = detail, pointer

    def below(self, pointer: str) -> "InvalidInput":
        """Return the same error with `pointer` in front of its own, for a value inside another value."""
        return InvalidInput(self.detail, pointer + self.pointer)


class BundleRefused(VaeError):
    """A bundle cannot be loaded at run time; the models loaded before it stay in service."""

    status, slug, title = 422, "bundle-refused", "Bundle refused"


class RateExceeded(VaeError):
    """The caller exceeds its rate; the next try may succeed after `retry_after` seconds."""

    status, slug, title = 429, "rate-exceeded", "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class HeadersTooLarge(VaeError):
    """The request line and headers exceed the limit; reading stopped there."""

    status, slug, title = 431, "headers-too-large", "Request line and headers too large"


class InferenceFailed(VaeError):
    """ONNX Runtime failed on valid rows."""

    slug, title = "inference-failed", "Inference failed"


class NotFinite(InferenceFailed):
    """A graph computed a NaN or an infinity from valid rows."""

    failure = "an output of the model is not finite: it has a NaN or an infinity"


class Overloaded(VaeError):
    """The queue is full, or the server starts or stops; the next try may succeed after `retry_after` seconds."""

    status, slug, title = 503, "overloaded", "Not ready or overloaded"
    retry_after: ClassVar[int] = 1


class DeadlineExceeded(VaeError):
    """The response was not computed within the time limit of the request."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


class StartupError(VaeError):
    """The server cannot start; the message is one sentence for the operator that names the file or setting."""


class BundleError(StartupError):
    """A bundle is missing, damaged or of an unknown format."""


class ExecutionProviderError(StartupError):
    """The configured execution provider is not available."""


class CommandError(VaeError):
    """A command failed; the message is for its user."""


class UsageError(CommandError):
    """The arguments of a command are wrong."""
