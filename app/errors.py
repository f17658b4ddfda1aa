"""The exception tree. Each class has its HTTP status and problem slug; a message is for the client, without its input.

VaeError
├── BadRequest 400
├── Unauthorized 401
├── Forbidden 403
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
├── StartupError (never answered: it ends the process)
│   ├── BundleError
│   └── ExecutionProviderError
└── CommandError (never answered: it ends a command)
    └── UsageError
"""

from typing import ClassVar

REFUSALS = {401, 403, 408, 413, 429, 431, 503, 504}
"""Statuses of requests that are turned away: for who asks, how much, how slowly or how often, or because the server is
busy. The other errors are a request's own mistakes, or the server's."""


class VaeError(Exception):
    """Root of everything that this package raises on purpose."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"


class BadRequest(VaeError):
    """A body that cannot be parsed at all."""

    status, slug, title = 400, "bad-request", "Unparseable request body"


class Unauthorized(VaeError):
    """No key, or a wrong one."""

    status, slug, title = 401, "unauthorized", "Missing or wrong key"


class Forbidden(VaeError):
    """A key of the server's that does not open this."""

    status, slug, title = 403, "forbidden", "Not with this key"


class NotFound(VaeError):
    """Nothing at this path."""

    status, slug, title = 404, "not-found", "Not found"


class UnknownModel(NotFound):
    """No model of this name, or no such version of it."""

    slug, title = "unknown-model", "Unknown model or version"


class MethodNotAllowed(VaeError):
    """The path exists, but not with this method."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(VaeError):
    """A request that took too long to arrive."""

    status, slug, title = 408, "request-timeout", "Request took too long to arrive"


class Conflict(VaeError):
    """What the server is, or how it was started, does not allow it."""

    status, slug, title = 409, "conflict", "Not as the server is now"


class BodyTooLarge(VaeError):
    """A body over the limit, stopped while it streamed."""

    status, slug, title = 413, "body-too-large", "Request body too large"


class UnsupportedMediaType(VaeError):
    """A body of another content type than the operation takes."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidInput(VaeError):
    """Everything else that is wrong with a request; `pointer` is a JSON pointer to the place (`/images/3`)."""

    status, slug, title = 422, "invalid-input", "Invalid input"

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail, self.pointer = detail, pointer

    def below(self, pointer: str) -> "InvalidInput":
        """The same error, one or more levels deeper: the caller knows where the value stands."""
        return InvalidInput(self.detail, pointer + self.pointer)


class BundleRefused(VaeError):
    """A bundle that was to be loaded at run time and cannot be served; what answered before answers on."""

    status, slug, title = 422, "bundle-refused", "Bundle refused"


class RateExceeded(VaeError):
    """More requests than their caller may send in a time: try again after `retry_after` seconds."""

    status, slug, title = 429, "rate-exceeded", "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class HeadersTooLarge(VaeError):
    """A request line and headers over the limit, stopped while they streamed."""

    status, slug, title = 431, "headers-too-large", "Request line and headers too large"


class InferenceFailed(VaeError):
    """ONNX Runtime failed on rows that passed every check."""

    slug, title = "inference-failed", "Inference failed"


class Overloaded(VaeError):
    """The queue is full, or the server is starting or stopping: try again after `retry_after` seconds."""

    status, slug, title = 503, "overloaded", "Not ready or overloaded"
    retry_after: ClassVar[int] = 1


class DeadlineExceeded(VaeError):
    """The rows were still waiting, or the answer was still being computed, when the request's time was up."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


class StartupError(VaeError):
    """The server cannot start; the message is one sentence for the operator, and names the file or setting."""


class BundleError(StartupError):
    """A bundle that is missing, damaged or of an unknown format."""


class ExecutionProviderError(StartupError):
    """The execution provider that was asked for is not there."""


class CommandError(VaeError):
    """A command that cannot go on; the message is for the person who typed it."""

    exit_status: ClassVar[int] = 1


class UsageError(CommandError):
    """A command that was typed wrongly."""

    exit_status = 2
