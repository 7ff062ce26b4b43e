"""The calling side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

A few persistent connections per address, opened when first needed and shared by all calls; a call takes the one with
the fewest calls in flight. When a connection drops, its calls fail with Unavailable at once and the next call opens a
new one. Nothing is retried here: the caller owns the deadline and knows whom else to ask.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Final, cast

import msgspec

from shared import limits, telemetry
from shared.errors import BY_CODE, DeadlineExceeded, PolychromeError, Unavailable
from shared.rpc import frames
from shared.rpc.frames import BadFrame, ErrorHeader, Frame, FrameKind, FrameReader, RequestHeader

CONNECT_TIMEOUT_S: Final = 2.0
CONNECTIONS_PER_ADDRESS: Final = 2


class RpcClient:
    """Calls methods of other processes by address."""

    def __init__(
        self,
        *,
        connections_per_address: int = CONNECTIONS_PER_ADDRESS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
    ) -> None:
        self._connections_per_address = connections_per_address
        self._connect_timeout_s = connect_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._channels: dict[str, list[_Channel]] = {}
        self._closed = False

    async def call(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> memoryview:
        """The answer's payload.

        Raises the error that the method raised, by its code; Unavailable when the connection cannot be made or breaks;
        DeadlineExceeded. Cancelling the call tells the server so.
        """
        if self._closed:
            raise Unavailable("this process is stopping")
        if len(payload) + limits.RPC_HEADER_BYTES_MAX > self._frame_bytes_max:
            raise Unavailable(f"a call of {len(payload)} bytes is too large")
        channel = min(self._channels_of(address), key=_load)
        header = msgspec.msgpack.encode(
            RequestHeader(method, telemetry.request_id.get(), max(1, int(timeout_s * 1000)))
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await channel.call(header, payload)
        except TimeoutError:
            raise DeadlineExceeded(f"{method} at {address} took longer than {timeout_s:.3f} s") from None

    async def close(self) -> None:
        """Drop all connections; calls in flight fail."""
        self._closed = True
        for channels in list(self._channels.values()):
            for channel in channels:
                channel.close()
        self._channels.clear()

    def _channels_of(self, address: str) -> list[_Channel]:
        channels = self._channels.get(address)
        if channels is None:
            forget = functools.partial(self._forget_unused, address)
            channels = [
                _Channel(address, self._connect_timeout_s, self._frame_bytes_max, forget)
                for _ in range(self._connections_per_address)
            ]
            self._channels[address] = channels
        return channels

    def _forget_unused(self, address: str) -> None:
        """Addresses come and go with the processes behind them."""
        if all(channel.unused for channel in self._channels.get(address, ())):
            self._channels.pop(address, None)


def _load(channel: _Channel) -> int:
    return channel.calls


class _Channel:
    """At most one connection to an address, opened when needed."""

    def __init__(
        self, address: str, connect_timeout_s: float, frame_bytes_max: int, unused: Callable[[], None]
    ) -> None:
        self.calls = 0  # waiting for the connection or for an answer
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._on_unused = unused
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    @property
    def unused(self) -> bool:
        return self.calls == 0 and self._connection is None

    async def call(self, header: bytes, payload: bytes) -> memoryview:
        self.calls += 1
        try:
            connection = self._connection
            if connection is None or not connection.usable:
                connection = await self._open()
            return await connection.call(header, payload)
        finally:
            self.calls -= 1
            if self.unused:
                self._on_unused()

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    async def _open(self) -> _Connection:
        """A usable connection. All who need one wait for the same attempt, and one giving up does not end it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, attempt: asyncio.Task[_Connection]) -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None and attempt.result().usable:
            self._connection = attempt.result()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            host, port = frames.split_address(self._address)
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(self._new_connection, host, port)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise Unavailable(f"cannot reach {self._address}: {error or type(error).__name__}") from None
        return connection

    def _new_connection(self) -> _Connection:
        return _Connection(self._address, self._frame_bytes_max, self._lost)

    def _lost(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
        if self.unused:
            self._on_unused()


class _Connection(asyncio.Protocol):
    """One connection and the calls in flight on it."""

    def __init__(self, address: str, frame_bytes_max: int, lost: Callable[[_Connection], None]) -> None:
        self._address = address
        self._on_lost = lost
        self._reader = FrameReader(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[memoryview]] = {}
        self._last_call = 0
        self._leaving = False
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._leaving and not self._transport.is_closing()

    async def call(self, header: bytes, payload: bytes) -> memoryview:
        await self._writable.wait()
        if self._transport is None or not self.usable:
            raise Unavailable(f"the connection to {self._address} was lost")
        self._last_call += 1
        call = self._last_call
        answer: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting[call] = answer
        self._transport.writelines((frames.head(FrameKind.REQUEST, call, header, len(payload)), payload))
        try:
            return await answer
        except asyncio.CancelledError:
            if self.usable:
                self._transport.write(frames.head(FrameKind.CANCEL, call, b"", 0))
            raise
        finally:
            self._waiting.pop(call, None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        frames.tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._accept(frame)
        except (BadFrame, msgspec.MsgspecError):
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the connection to {self._address} was lost"))
        self._on_lost(self)

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.LEAVING:
            self._leaving = True
            return
        answer = self._waiting.get(frame.call)
        if answer is None or answer.done():
            return  # nobody waits any more; the cancel crossed the answer
        if frame.kind is FrameKind.ANSWER:
            answer.set_result(frame.payload)
        elif frame.kind is FrameKind.ERROR:
            answer.set_exception(_error(msgspec.msgpack.decode(frame.header, type=ErrorHeader)))
        else:
            raise BadFrame(f"unexpected {frame.kind.name}")


def _error(header: ErrorHeader) -> PolychromeError:
    return BY_CODE.get(header.code, PolychromeError)(header.message)
