"""A connection for many small commands at once.

A pool lends a whole connection for every command, and that costs several times what the command itself does. Here
commands are written one behind the other as they come, and their answers, which arrive in the same order, are handed
back. What is large does not belong here: everything behind it would wait.

A lost connection fails all commands in flight, as losing a connection of their own would; the next command opens a
new one. When a caller is cancelled its answer is dropped on arrival. If the server has not said anything for a while
by then, the connection is given up, since a deadline is the usual reason and another connection may fare better.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import hiredis
import redis.exceptions as failures

STALLED_S: Final = 1.0
"""Silence after which a cancelled caller takes the connection along."""

PENDING_BYTES_MAX: Final = 16 * 1024
"""Bytes that a server reads of one connection at a time. Commands beyond it would wait for another round of its loop,
and for another fsync of its log."""

COMMAND_BYTES_MAX: Final = 64 * 1024
"""The longest single command, which then has the connection to itself until it is answered."""

_NOTHING: Final = object()

Connect = Callable[["OpenLine"], Awaitable[None]]
"""Opens a connection, ready for commands, and makes the line its protocol. Raises NotConnected."""


class OpenLine(asyncio.Protocol):
    """An open connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._keep: object = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[tuple[asyncio.Future[Any], int]] = deque()
        self._pending_bytes = 0
        self._heard_s = 0.0
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
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def has_room(self, size: int) -> bool:
        """Whether a command of so many bytes may be sent now. One may always, when nothing is in flight."""
        return not self._waiting or self._pending_bytes + size <= PENDING_BYTES_MAX

    async def execute(self, packed: bytes) -> Any:
        """The answer to one command. Raises what the server answers, and ConnectionError."""
        if self._transport is None or not self.open:
            raise failures.ConnectionError("the connection was lost")
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            self._heard_s = self._loop.time()
        self._waiting.append((answer, len(packed)))
        self._pending_bytes += len(packed)
        self._transport.write(packed)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._loop.time() - self._heard_s > STALLED_S:
                self.abort()
            raise

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._hand_back(reply)
        except (hiredis.ProtocolError, IndexError):  # not the protocol, or an answer to no command
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(failures.ConnectionError(f"the connection was lost: {exc or 'closed'}"))

    def _hand_back(self, reply: Any) -> None:
        answer, size = self._waiting.popleft()
        self._pending_bytes -= size
        if answer.done():
            return  # its caller was cancelled
        if isinstance(reply, Exception):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)


class Line:
    """A connection that is opened when it is needed and replaced when it is lost."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._current: OpenLine | None = None
        self._opening: asyncio.Task[OpenLine] | None = None

    def takes(self, size: int) -> bool:
        """Whether a command of so many bytes should go this way."""
        return size <= COMMAND_BYTES_MAX and (self._current is None or self._current.has_room(size))

    async def execute(self, packed: bytes) -> Any:
        """The answer to one command. Raises what the server answers; NotConnected; ConnectionError."""
        line = self._current
        if line is None or not line.open:
            line = await self._open()
        return await line.execute(packed)

    async def close(self) -> None:
        """Commands in flight fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._current is not None:
            self._current.abort()
            self._current = None

    async def _open(self) -> OpenLine:
        """All who need a connection wait for the same attempt; one of them giving up does not end it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._attempt())
            self._opening.add_done_callback(self._attempted)
        return await asyncio.shield(self._opening)

    async def _attempt(self) -> OpenLine:
        line = OpenLine()
        await self._connect(line)
        return line

    def _attempted(self, attempt: asyncio.Task[OpenLine]) -> None:
        self._opening = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._current = attempt.result()
