"""The one map from the error family to HTTP: status, wire name and headers.

Some errors have a name of their own, all others are `ChromaError` (docs/wire.md, section 2). The official
clients pick their exception by that name, so the name matters as much as the status.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from frontend.http.responses import HttpResponse
from shared import errors

DURABILITY_HEADER: Final = "X-Polychrome-Durability"
"""By this header a write asks for a durability class, and its answer names the one that it has."""

COMMON_NAME: Final = "ChromaError"
NO_TRACE: Final = "0" * 32
PLAIN_TOO_LARGE: Final = b"Payload too large"
PLAIN_ROUTES: Final = frozenset({"add", "update", "upsert", "query", "search"})
"""Last path segments of the routes whose 413 is plain text without a content type."""


class BodyTimeout(errors.PolychromeError):
    """The client took too long to send its body; the connection closes."""

    code = "body_timeout"


class BrokenBody(errors.PolychromeError):
    """The body's framing is broken or the client hung up in the middle; the connection closes."""

    code = "broken_body"


class PathTooLong(errors.LimitExceeded):
    """The path is over its limit; the connection closes."""

    code = "path_too_long"


class HeadersTooLarge(errors.LimitExceeded):
    """The headers are over their limit; the connection closes."""

    code = "headers_too_large"


class EmbeddingFailed(errors.Unavailable):
    """A registered embedding function gave no vectors, so nothing was stored. The message is made for clients: it names
    the function as they know it, and no address.
    """

    code = "embedding_failed"

    def __init__(self, function: str, what: str) -> None:
        super().__init__(f"The embedding function '{function}' {what}; nothing was stored")


class Wire(NamedTuple):
    """The form of a class of errors in answers: status and the member `error` of the body. `closes`: the connection
    cannot be used any more.
    """

    status: int
    name: str = COMMON_NAME
    closes: bool = False


WIRE: Final[dict[type[errors.PolychromeError], Wire]] = {
    errors.PolychromeError: Wire(500, "InternalError"),
    errors.InvalidArgument: Wire(400, "InvalidArgumentError"),
    errors.LimitExceeded: Wire(400, "InvalidArgumentError"),
    errors.MalformedBody: Wire(400, "InvalidArgumentError"),
    errors.DimensionMismatch: Wire(400, "InvalidArgumentError"),
    BrokenBody: Wire(400, "InvalidArgumentError", closes=True),
    errors.Unauthenticated: Wire(401, "AuthorizationError"),
    PathTooLong: Wire(414, closes=True),
    HeadersTooLarge: Wire(431, closes=True),
    errors.Forbidden: Wire(403),
    errors.PermissionDenied: Wire(403, "AuthError"),
    errors.NotFound: Wire(404, "NotFoundError"),
    errors.Gone: Wire(404, "NotFoundError"),
    BodyTimeout: Wire(408, closes=True),
    errors.AlreadyExists: Wire(409),
    errors.Attached: Wire(409),
    errors.ConditionalWriteConflict: Wire(409, "ConditionalWriteConflictError"),
    errors.StaleRead: Wire(412, "StaleReadError"),
    errors.BodyTooLarge: Wire(413, closes=True),
    errors.UnsupportedMediaType: Wire(415),
    errors.WrongShape: Wire(422),
    errors.QuotaExceeded: Wire(422),
    errors.Backoff: Wire(429, "Backoff"),
    errors.RateLimited: Wire(429, "RateLimitError"),
    errors.Corrupt: Wire(500, "InternalError"),
    errors.Damaged: Wire(500, "InternalError"),
    errors.Unimplemented: Wire(501),
    errors.StorageFull: Wire(507),
    errors.Unavailable: Wire(503),
    errors.Garbled: Wire(503),
    errors.ConnectionLost: Wire(503),
    errors.UnknownOutcome: Wire(503),
    errors.LessDurable: Wire(503, "LessDurableError"),
    errors.JournalAway: Wire(503),
    errors.NotJournaled: Wire(503),
    errors.WrongWorker: Wire(503),
    errors.NotRepeated: Wire(503),
    errors.StaleGeneration: Wire(503),
    errors.StaleEpoch: Wire(503),
    errors.DeadlineExceeded: Wire(504),
}

FAULTS: Final = {
    500: "Internal error",
    503: "A part of the service is unavailable; nothing was changed, try again later",
    504: "The deadline passed before there was an answer",
}
"""Messages that clients get for faults of the server, by status. Their causes name addresses and belong in the log."""

DAMAGED: Final = "Stored data damaged"
"""The message of an answer that cannot be given because stored bytes are damaged, or its beginning."""

JOURNAL_AWAY: Final = "Object storage takes no changes of the catalog at present; nothing was changed, try again later"
NOT_JOURNALED: Final = (
    "The change was made, but object storage has not taken it down: it may be lost with Redis. Repeat it to be sure"
)

UNKNOWN_OUTCOME: Final = (
    "A part of the service went away while the write was under way; it may or may not have been applied"
)


def wire_of(error: errors.PolychromeError) -> Wire:
    """The entry of the nearest class of `error` in the map."""
    return next(WIRE[kind] for kind in type(error).__mro__ if kind in WIRE)


def body_of(name: str, message: str) -> bytes:
    """The body of an error, as JSON. Both members always: the Python client breaks on an error without a message."""
    return orjson.dumps({"error": name, "message": message.encode("utf-8", "replace").decode()})


def error_response(error: errors.PolychromeError, path: str) -> HttpResponse:
    """The answer to a request on `path` that ended in `error`. Of a fault of the server it shows no details: those
    belong in the log.
    """
    wire = wire_of(error)
    if isinstance(error, errors.BodyTooLarge) and path.rpartition("/")[2] in PLAIN_ROUTES:
        answer = HttpResponse(PLAIN_TOO_LARGE, wire.status, content_type=None)
    else:
        message = _shown_message(error, wire.status)
        answer = HttpResponse(body_of(wire.name, message), wire.status)
    if isinstance(error, errors.Unauthenticated):
        answer.add("WWW-Authenticate", "Bearer")  # not Basic: browsers would ask for a password and send it ever after
    if isinstance(error, errors.LessDurable):
        answer.add(DURABILITY_HEADER, error.reached)
    if isinstance(error, errors.Backoff):
        answer.add("Retry-After", str(error.retry_after_s))
    if wire.closes:
        answer.force_close()
    return answer


def _shown_message(error: errors.PolychromeError, status: int) -> str:
    """The message that a client gets for `error`."""
    if isinstance(error, errors.JournalAway):
        return JOURNAL_AWAY
    if isinstance(error, errors.NotJournaled):
        return NOT_JOURNALED
    if isinstance(error, errors.UnknownOutcome):
        return UNKNOWN_OUTCOME
    if isinstance(error, errors.Damaged):
        return f"{DAMAGED}: {error.message}"
    if isinstance(error, errors.Corrupt | errors.Garbled):
        return f"{DAMAGED}: {error.name}" if error.name else DAMAGED
    if isinstance(error, errors.LessDurable):
        return f"The write is stored, and durability {error.message}"
    return (
        error.message if isinstance(error, EmbeddingFailed | errors.NotRepeated) else FAULTS.get(status, error.message)
    )


def internal_error_response() -> HttpResponse:
    """500: the answer after an exception that nobody foresaw."""
    return HttpResponse(body_of("InternalError", "Internal error"), 500)


def malformed_request_response() -> HttpResponse:
    """400: the answer to bytes that are not an HTTP request."""
    answer = HttpResponse(body_of("InvalidArgumentError", "Not an HTTP/1.1 request that can be read"), 400)
    answer.add("Chroma-Trace-Id", NO_TRACE)
    return answer


def removed_api_response(message: str) -> HttpResponse:
    """410: the answer of an API that was removed."""
    return HttpResponse(body_of("Unimplemented", message), 410)
