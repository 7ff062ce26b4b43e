"""A connection to Redis that takes many small commands at once.

A pool lends a whole connection to each command, which costs several times what the command itself does. Here commands
are written one behind the other as they come, and the replies, which arrive in the same order, are handed back. Large
commands do not belong here: everything behind them would wait.

A lost connection fails all commands in flight, as losing a connection of its own would fail each; the next command
opens a new one. When a caller is cancelled, the reply to its command is dropped on arrival. If the server has not said
anything for a while by then, the connection is given up: a deadline is the usual reason for cancelling, and another
connection may fare better.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import hiredis
import redis.exceptions as failures

STALLED_S: Final = 1.0
"""When a caller is cancelled after so many seconds of silence, the connection is given up."""

IN_FLIGHT_BYTES_MAX: Final = 16 * 1024
"""Bytes of the commands in flight: what a server reads of one connection at a time. Commands beyond that would wait for
another round of its loop, and for another fsync of its log."""

COMMAND_BYTES_MAX: Final = 64 * 1024
"""The longest single command, in bytes, which then has the connection to itself until it is answered."""

_NOTHING: Final = object()

Connect = Callable[["PipelinedConnection"], Awaitable[None]]
"""Opens a connection that is ready for commands, and gives it to `PipelinedConnection.begin`. Raises NotConnected."""


class PipelinedConnection(asyncio.Protocol):
    """An open connection, and the commands in flight on it in the order in which they were sent."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._keep: object = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._in_flight: deque[tuple[asyncio.Future[Any], int]] = deque()
        self._in_flight_bytes = 0
        self._last_reply_s = 0.0
        self._loop = asyncio.get_running_loop()

    def begin(self, transport: asyncio.Transport, parse_error: Callable[[str], Exception], keep: object) -> None:
        """Takes over a connection that is ready for commands and quiet. `parse_error` makes the exception of an error
        reply from its text. `keep` lives as long: a transport is aborted when its former owners are collected.
        """
        self._keep = keep
        self._reader = hiredis.Reader(replyError=parse_error, notEnoughData=_NOTHING)
        self._transport = transport
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def may_send(self, size: int) -> bool:
        """Whether a command of so many bytes may be sent now. When nothing is in flight, any may."""
        return not self._in_flight or self._in_flight_bytes + size <= IN_FLIGHT_BYTES_MAX

    async def execute(self, packed: bytes) -> Any:
        """Sends a command and returns the reply. Raises the error that the server replies, and ConnectionError."""
        if self._transport is None or not self.is_open:
            raise failures.ConnectionError("the connection was lost")
        reply: asyncio.Future[Any] = self._loop.create_future()
        if not self._in_flight:
            self._last_reply_s = self._loop.time()
        self._in_flight.append((reply, len(packed)))
        self._in_flight_bytes += len(packed)
        self._transport.write(packed)
        try:
            return await reply
        except asyncio.CancelledError:
            if self._loop.time() - self._last_reply_s > STALLED_S:
                self.abort()
            raise

    def abort(self) -> None:
        """Drops the connection; commands in flight fail."""
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._last_reply_s = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._hand_back(reply)
        except (hiredis.ProtocolError, IndexError):  # not the protocol, or a reply to no command
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        in_flight, self._in_flight = self._in_flight, deque()
        for reply, _ in in_flight:
            if not reply.done():
                reply.set_exception(failures.ConnectionError(f"the connection was lost: {exc or 'closed'}"))

    def _hand_back(self, value: Any) -> None:
        reply, size = self._in_flight.popleft()
        self._in_flight_bytes -= size
        if reply.done():
            return  # its caller was cancelled
        if isinstance(value, Exception):
            reply.set_exception(value)
        else:
            reply.set_result(value)


class SharedConnection:
    """A pipelined connection that is opened when it is needed and replaced when it was lost."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._current: PipelinedConnection | None = None
        self._opening: asyncio.Task[PipelinedConnection] | None = None

    def accepts(self, size: int) -> bool:
        """Whether a command of so many bytes should be sent here."""
        return size <= COMMAND_BYTES_MAX and (self._current is None or self._current.may_send(size))

    async def execute(self, packed: bytes) -> Any:
        """Sends a command and returns the reply. Raises the error that the server replies; NotConnected;
        ConnectionError.
        """
        connection = self._current
        if connection is None or not connection.is_open:
            connection = await self._open()
        return await connection.execute(packed)

    async def close(self) -> None:
        """Closes the connection; commands in flight fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._current is not None:
            self._current.abort()
            self._current = None

    async def _open(self) -> PipelinedConnection:
        """A new connection. All callers that need one wait for the same attempt, also when one of them gives up."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._attempt())
            self._opening.add_done_callback(self._attempted)
        return await asyncio.shield(self._opening)

    async def _attempt(self) -> PipelinedConnection:
        connection = PipelinedConnection()
        await self._connect(connection)
        return connection

    def _attempted(self, attempt: asyncio.Task[PipelinedConnection]) -> None:
        self._opening = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._current = attempt.result()
