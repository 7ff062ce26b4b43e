"""Connections to Redis, and what their failures mean for the caller.

redis-py repeats a command by itself after a lost connection, which can turn one append into two. Here nothing is
repeated but by `retry_idempotent`, which is given only what has the effect of once when it is applied twice, and which
owns the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

import hiredis
import redis.exceptions as failures
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.errors import Backoff, PolychromeError, StorageFull, Unavailable, UnknownOutcome
from shared.process.concurrency import cancellations, require_uncancelled
from shared.redis.deadline import Deadline
from shared.redis.pipelined_connection import COMMAND_BYTES_MAX, PipelinedConnection, SharedConnection

SOCKET_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 2.0
CONNECTIONS_MAX: Final = 64
"""Connections in the pool; more commands than that wait for one."""

WRITE_DEADLINE_S: Final = 5.0
READ_DEADLINE_S: Final = 2.0
"""Longest time of a command with its retries, in seconds, unless the caller says otherwise."""

PAUSE_FIRST_S: Final = 0.02
PAUSE_MAX_S: Final = 0.5
"""The pause between retries doubles from the first to the longest, in seconds."""

NO_ROOM: Final = (
    "The log has no room for records, in memory or on its disk; nothing was written, deletes are still taken"
)

T = TypeVar("T")


class NotConnected(failures.ConnectionError):
    """No connection could be made, so nothing was sent."""


class _ConnectionFixes:
    """Mixed into redis-py's connection classes. Failing to connect is told apart from losing a connection. And a
    cancellation that arrives while a command is being sent is never lost: redis-py sends under `asyncio.wait_for`,
    which swallows it (before Python 3.12) when the sending ends in the same moment, and then deadlines and shutdowns
    wait for ever.
    """

    socket_timeout: float | None
    _parser: Any
    _reader: Any
    _writer: Any

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        base: Any = super()
        try:
            await base.connect_check_health(*args, **kwargs)
        except (failures.ConnectionError, failures.TimeoutError) as error:
            raise NotConnected(str(error)) from error

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        base: Any = super()
        limit_s, self.socket_timeout = self.socket_timeout, None  # None: redis-py then sends without `wait_for`
        try:
            async with asyncio.timeout(limit_s):
                await base.send_packed_command(command, check_health=check_health)
        except TimeoutError as error:
            raise failures.TimeoutError("Timeout writing to socket") from error
        finally:
            self.socket_timeout = limit_s

    async def hand_over(self, connection: PipelinedConnection) -> None:
        """Connects and authenticates, then leaves the socket to `connection`."""
        await self.connect_check_health(check_health=False)
        streams = (self._reader, self._writer)
        self._reader = self._writer = None  # or they would be closed with this object
        connection.begin(streams[1].transport, self._parser.parse_error, keep=streams)


class _PlainConnection(_ConnectionFixes, Connection):
    pass


class _TlsConnection(_ConnectionFixes, SSLConnection):
    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self.ssl_context.context = None  # made anew of its files: certificates are replaced while processes run
        await super().connect_check_health(*args, **kwargs)


_SHARED: Final = frozenset({"EVALSHA", "HGET", "HMGET", "GET"})
"""Commands that go over the shared connection: quick ones, whose replies redis-py hands on as they are."""


class _Client(Redis):
    """Sends small scripts and look-ups, which are most commands, over one connection that they share; all else over the
    pool.
    """

    def __init__(self, pool: BlockingConnectionPool, shared: SharedConnection) -> None:
        super().__init__(connection_pool=pool)
        self.shared = shared
        self.epoch: int | None = None
        """The epoch of the cluster when the newest connection was made, if that was asked for."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in _SHARED and _payload(args) <= COMMAND_BYTES_MAX:
            packed = hiredis.pack_command(args)
            if self.shared.accepts(len(packed)):
                return await self.shared.execute(packed)
        pooled: Any = super().execute_command
        return await pooled(*args, **options)


def _payload(args: Iterable[Any]) -> int:
    """Bytes of a command, roughly: only payloads are counted; names and numbers are short."""
    return sum([len(argument) for argument in args if isinstance(argument, (bytes, memoryview))])


@asynccontextmanager
async def open_redis(url: str, prepare: Callable[[Connection], Awaitable[int]] | None = None) -> AsyncIterator[Redis]:
    """A client for `redis://` or `rediss://`. Replies are binary, and nothing is retried. Raises Unavailable while the
    server is away.

    `prepare` makes a new connection ready for commands, in place of its `on_connect`, and returns the cluster's epoch;
    it may refuse by NotConnected.
    """

    async def prepared(connection: Connection) -> None:
        client.epoch = await prepare(connection) if prepare else None

    options: dict[str, Any] = dict(parse_url(url))
    secure = options.pop("connection_class", None) is not None
    pool = BlockingConnectionPool(
        connection_class=_TlsConnection if secure else _PlainConnection,
        max_connections=CONNECTIONS_MAX,
        timeout=None,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        redis_connect_func=prepared if prepare else None,
        **options,
    )

    make_connection: Callable[[], _ConnectionFixes] = pool.make_connection

    async def connect(connection: PipelinedConnection) -> None:
        await make_connection().hand_over(connection)

    client = _Client(pool, SharedConnection(connect))
    try:
        with translated_errors():
            await command(client, "PING")
        yield client
    finally:
        await client.shared.close()
        for close in (client.aclose, pool.aclose):
            # A connection that does not close in time must not take the place of what ends the caller: a task that was
            # cancelled would go on.
            with suppress(failures.TimeoutError):
                await close()


def known_epoch(redis: Redis) -> int | None:
    """The epoch of the cluster as the client's newest connection found it; None of a client that does not ask."""
    return redis.epoch if isinstance(redis, _Client) else None


async def command(redis: Redis, *args: Any) -> Any:
    """Sends a command and returns the reply, as redis-py decodes it."""
    execute: Any = redis.execute_command
    return await execute(*args)


@contextmanager
def translated_errors(*, writes: bool = False) -> Iterator[None]:
    """Turns redis-py's errors into the project's. A write whose reply was lost is an UnknownOutcome."""
    before = cancellations()
    try:
        yield
    except _REDIS_FAILURES as error:
        require_uncancelled(before)
        raise translate_error(error, writes=writes) from error


_REDIS_FAILURES: Final = (failures.RedisError, OSError)
_REFUSALS: Final = ("MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING")


def translate_error(error: Exception, *, writes: bool) -> Exception:
    """The project's error for one of redis-py's. A mistake of ours (a broken script, a wrong type) stays what it is."""
    match error:
        case failures.OutOfMemoryError():
            return StorageFull(NO_ROOM, retry_after_s=2)
        case NotConnected() | failures.BusyLoadingError() | failures.ReadOnlyError():
            return Unavailable(f"The log is unavailable: {error}")
        case failures.ConnectionError() | failures.TimeoutError() | OSError():
            kind = UnknownOutcome if writes else Unavailable
            return kind(f"The connection to the log was lost: {error}")
        case failures.ResponseError() if str(error).startswith(_REFUSALS):
            return Unavailable(f"The log is unavailable: {error}")
    return error


async def retry_idempotent(attempt: Callable[[], Awaitable[T]], *, writes: bool, deadline_s: float | None = None) -> T:
    """The result of `attempt`, which is repeated over lost and refused connections until the deadline, and must be
    idempotent.

    Raises UnknownOutcome when it writes and some attempt may have reached the server, Unavailable when none did,
    Backoff when the server is out of memory and no attempt was applied.
    """
    unknown = False
    last: PolychromeError | None = None
    pause_s, before_call = PAUSE_FIRST_S, cancellations()
    try:
        with Deadline(deadline_s or (WRITE_DEADLINE_S if writes else READ_DEADLINE_S)):
            while True:
                unknown, before = writes, unknown
                try:
                    return await attempt()
                except _REDIS_FAILURES as error:
                    require_uncancelled(before_call)
                    meaning = translate_error(error, writes=writes)
                    if isinstance(meaning, Backoff) and before:
                        # An earlier attempt may have been applied; a full server refuses to look that up.
                        meaning = UnknownOutcome(meaning.message)
                    if not isinstance(meaning, Unavailable):
                        raise meaning from error
                    unknown = before or isinstance(meaning, UnknownOutcome)
                    last = meaning
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
    except TimeoutError:
        kind = UnknownOutcome if unknown else Unavailable
        raise kind(last.message if last else "The log did not answer in time") from last
