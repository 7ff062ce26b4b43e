"""The error family. Each class says what the caller may do next.

Messages are in the words of docs/wire.md. `code` crosses process boundaries (see `shared.rpc`); the map from
these classes to HTTP statuses and wire names stands in `frontend.http.errors` alone.
"""

from __future__ import annotations

from typing import ClassVar


class PolychromeError(Exception):
    """Base of everything this project raises on purpose."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(PolychromeError):
    """The request is wrong; sending it again changes nothing."""

    code = "invalid_argument"


class MalformedBody(InvalidArgument):
    """The request body is not JSON."""

    code = "malformed_body"


class LimitExceeded(InvalidArgument):
    """The request holds more of something than is allowed; nothing was done, send less. `limit` names what is limited;
    `value` is what the request has of it, at least, and `most` what it may have; `where` says in what part of it.
    """

    code = "limit_exceeded"

    def __init__(self, limit: str, value: int = 0, most: int = 0, where: str = "") -> None:
        self.limit, self.value, self.most, self.where = limit, value, most, where
        super().__init__(f"Limit exceeded: {where}: {value} {limit}, at most {most}" if where else limit)


class WrongShape(PolychromeError):
    """The body is JSON, but not of the route's shape."""

    code = "wrong_shape"


class UnsupportedMediaType(PolychromeError):
    """The body is declared to be something other than JSON."""

    code = "unsupported_media_type"


class BodyTooLarge(PolychromeError):
    """The body is over the configured limit; send less."""

    code = "body_too_large"


class NotFound(PolychromeError):
    """The tenant, database, collection or function that the request names does not exist (any more)."""

    code = "not_found"


class AlreadyExists(PolychromeError):
    """The name is taken."""

    code = "already_exists"


class Attached(AlreadyExists):
    """The collection has a function already."""

    code = "attached"


class Forbidden(PolychromeError):
    """Not allowed by configuration or to this caller."""

    code = "forbidden"


class PermissionDenied(Forbidden):
    """The sender lacks an action for what it can see, or its scope has only a part of what the request touches."""

    code = "permission_denied"


class Unauthenticated(PolychromeError):
    """No credential where one is needed, or one that does not hold: malformed, unknown, expired, revoked."""

    code = "unauthenticated"


class StaleRead(PolychromeError):
    """The snapshot that was asked for can no longer be served; begin again."""

    code = "stale_read"


class ConditionalWriteConflict(PolychromeError):
    """Something that was read has been written since; begin again."""

    code = "conditional_write_conflict"


class Backoff(PolychromeError):
    """The log's backlog is full. Nothing was written; try again after `retry_after_s`."""

    code = "backoff"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Backoff):
    """The tenant has used up what it may use in this second, or as much of it is being worked on as may be. Nothing was
    done.
    """

    code = "rate_limited"


class StorageFull(Backoff):
    """The log has no room for records, in memory or on its disk. Nothing was written; deletes are still taken."""

    code = "storage_full"


class QuotaExceeded(PolychromeError):
    """A quota refuses the request; nothing was done."""

    code = "quota_exceeded"


class Unimplemented(PolychromeError):
    """Not done by this build."""

    code = "unimplemented"


class Unavailable(PolychromeError):
    """Something the request needs is away and the request was *not applied*; try again later."""

    code = "unavailable"


class Garbled(Unavailable):
    """A value of the catalog in Redis is there and cannot be read. It counts as lost, and the log service puts it back
    from the bucket; what it belongs to is unavailable until then. `name` is what the registry of damage calls it
    (`shared.catalog.row_names`).
    """

    code = "garbled"

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(f"{message}: {name}" if name else message)
        self.name = name


class ConnectionLost(Unavailable):
    """The connection broke after a call was sent that changes nothing: its server may have died of it."""

    code = "connection_lost"


class UnknownOutcome(Unavailable):
    """The connection broke after a write was sent: it may or may not have been applied.

    Retry only under the same request id.
    """

    code = "unknown_outcome"


class JournalAway(Unavailable):
    """The catalog's journal in the bucket takes no entries, so nothing was changed; try again later."""

    code = "journal_away"


class NotJournaled(UnknownOutcome):
    """A change of the catalog was made, and may be lost with Redis: the journal in the bucket has not taken it."""

    code = "not_journaled"


class LessDurable(PolychromeError):
    """The write was applied, and is on the disk of the log's server; it has not got to where it should be as well, as
    far as is known. `reached` is the durability class that it has.
    """

    code = "less_durable"

    def __init__(self, message: str, reached: str = "disk") -> None:
        super().__init__(message)
        self.reached = reached


class DeadlineExceeded(PolychromeError):
    """The deadline passed first."""

    code = "deadline_exceeded"


class NotRepeated(PolychromeError):
    """A process died or ran out of memory while it worked on the request, which is not given to another one: it might
    do the same there. Ask for less, or again later.
    """

    code = "not_repeated"


class WrongWorker(PolychromeError):
    """The process is draining or cannot serve the shard; ask the next one in rank."""

    code = "wrong_worker"


class Corrupt(PolychromeError):
    """Stored bytes fail their checksum or break their format; never served, always reported. `name` is what was found
    damaged, as the registry of damage has it (`shared.catalog.damage`): an object's key or a name of
    `shared.log.naming`; empty when that is not known.
    """

    code = "corrupt"

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class Damaged(Corrupt):
    """Corrupt, as a query worker tells it: the message is made for clients and says no more than which stored data is
    damaged, and of which shard.
    """

    code = "damaged"


class Gone(PolychromeError):
    """The collection was deleted (found by a script or a worker, whatever a cache said)."""

    code = "gone"


class StaleGeneration(PolychromeError):
    """The caller acted on an outdated catalog row; read it again and repeat."""

    code = "stale_generation"


class StaleEpoch(PolychromeError):
    """Redis was restored since the work began whose result this is: nothing was changed; begin anew."""

    code = "stale_epoch"


class DimensionMismatch(PolychromeError):
    """The collection has another dimension, found by the append script. `expected` is the collection's."""

    code = "dimension_mismatch"

    def __init__(self, message: str, expected: int = 0) -> None:
        super().__init__(message)
        self.expected = expected


def _family(root: type[PolychromeError]) -> dict[str, type[PolychromeError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_family(child))
    return found


BY_CODE = _family(PolychromeError)
