"""The calling side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

Calls to one address travel together, the more of them the more there are: half of those that come, at the rate of
late, while a frame is under way. So there are about two frames at a time, one being answered while the other fills:

```text
calls    1 2 3   4 5 6   7 8 9
frames  [1 2 3] [4 5 6] [7 8 9]
answers                1 2 3   4 5 6   ...
```

Who comes alone goes at once, and nobody waits longer than `GATHER_S`, so that a slow call holds nobody up.

There are a few persistent connections per address, opened when the others are busy; a frame takes the one with the
fewest calls in flight. When a connection drops, its calls fail with Unavailable at once and the next frame opens a new
one. Nothing is retried here: the caller owns the deadline and knows whom else to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

import msgspec

from shared import limits
from shared.errors import BY_CODE, DeadlineExceeded, PolychromeError, Unavailable
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.frames import (
    ALONE_BYTES,
    TOGETHER_MAX,
    AnswerHeader,
    BadFrame,
    CallHeader,
    Frame,
    FrameKind,
    FrameReader,
)
from shared.rpc.parts import Parts
from shared.rpc.ticker import Ticker
from shared.rpc.traffic import Traffic

CONNECT_TIMEOUT_S: Final = 2.0
CONNECTIONS_PER_ADDRESS: Final = 2

GATHER_S: Final = 0.0015
"""How long a call waits for others at most."""


class RpcClient:
    """Calls methods of other processes by address."""

    def __init__(
        self,
        *,
        connections_per_address: int = CONNECTIONS_PER_ADDRESS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
    ) -> None:
        self.connections_per_address = connections_per_address
        self.connect_timeout_s = connect_timeout_s
        self.frame_bytes_max = frame_bytes_max
        self._peers: dict[str, _Peer] = {}
        self._ticker = Ticker(self._expire)
        self._closed = False

    def begin(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> asyncio.Future[memoryview]:
        """The answer's payload, when it comes.

        It fails with the error that the method raised, by its code; with Unavailable when the connection cannot be made
        or breaks; with DeadlineExceeded. Cancelling it tells the server so.
        """
        return self._begin(address, method, payload, timeout_s, None)

    def _begin(
        self, address: str, method: str, payload: bytes, timeout_s: float, parts: Parts | None
    ) -> asyncio.Future[memoryview]:
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Peer(self, address)
        call = _Call(peer, method, payload, timeout_s, parts)
        if self._closed:
            call.fail(Unavailable("this process is stopping"))
        elif len(payload) + limits.RPC_HEADER_BYTES_MAX > self.frame_bytes_max:
            call.fail(Unavailable(f"a call of {len(payload)} bytes is too large"))
        else:
            peer.send(call)
        self._ticker.wake(peer.loop)
        return call.answer

    def begin_parts(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> asyncio.Future[Parts]:
        """The answer from its first part on, when that comes. It fails as `begin` does, and so does waiting for one of
        the others.
        """
        parts = Parts()
        return parts.of(self._begin(address, method, payload, timeout_s, parts))

    async def call(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> memoryview:
        """`begin`, and wait for it."""
        return await self.begin(address, method, payload, timeout_s=timeout_s)

    async def close(self) -> None:
        """Drop all connections; calls in flight fail."""
        self._closed = True
        self._ticker.stop()
        for peer in list(self._peers.values()):
            peer.close()
        self._peers.clear()

    def calls_open(self, address: str) -> int:
        """Calls in flight to an address, for who has a choice."""
        peer = self._peers.get(address)
        return len(peer.open) if peer is not None else 0

    def forget(self, address: str) -> None:
        """Addresses come and go with the processes behind them."""
        self._peers.pop(address, None)

    def _expire(self, now: float) -> bool:
        """Fail the calls whose time is over; whether any are left."""
        peers = list(self._peers.values())
        for peer in peers:
            peer.expire(now)
        return any(peer.open for peer in peers)


class _Call:
    """One call, from the asking to its end."""

    __slots__ = (
        "answer", "connection", "deadline_s", "flight", "method", "number", "parts", "payload", "peer", "request_id"
    )  # fmt: skip

    def __init__(self, peer: _Peer, method: str, payload: bytes, timeout_s: float, parts: Parts | None) -> None:
        self.peer = peer
        self.parts = parts
        self.method = method
        self.payload = payload
        self.request_id = telemetry.request_id.get()
        self.deadline_s = peer.loop.time() + timeout_s
        self.number = 0
        self.connection: _Connection | None = None
        self.flight: _Flight | None = None
        self.answer: asyncio.Future[memoryview] = peer.loop.create_future()
        self.answer.add_done_callback(self._ended)

    def fail(self, error: PolychromeError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _ended(self, _answer: asyncio.Future[memoryview]) -> None:
        self.peer.ended(self)


class _Flight:
    """A frame of calls. It is back when the first of them has ended, however that was."""

    __slots__ = ("departed_s", "is_back")

    def __init__(self, departed_s: float) -> None:
        self.departed_s = departed_s
        self.is_back = False


class _Peer:
    """One address: the calls that are open, those of them that wait to travel together, and the connections."""

    def __init__(self, client: RpcClient, address: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.open: set[_Call] = set()
        self._client = client
        self._address = address
        self._held: list[_Call] = []
        self._traffic = Traffic()
        self._departure: asyncio.Handle | None = None
        self._departs_now = False
        self._connections: list[_Connection] = []
        self._boarding: list[Sequence[_Call]] = []  # frames that wait for the connection that is being made
        self._connecting: asyncio.Task[None] | None = None

    # ---- calls

    def send(self, call: _Call) -> None:
        self.open.add(call)
        if len(call.payload) > ALONE_BYTES:
            self._depart([call])
            return
        self._traffic.came(self.loop.time())
        self._held.append(call)
        if len(self._held) >= self._traffic.frame_calls:
            self._depart_soon()
        elif self._departure is None:
            self._departure = self.loop.call_later(GATHER_S, self._depart_held)

    def ended(self, call: _Call) -> None:
        """It has its answer, or failed, or nobody waits for it any more."""
        self.open.discard(call)
        if call.connection is not None:
            call.connection.let_go(call)
        if call.flight is not None and not call.flight.is_back:
            call.flight.is_back = True
            self._traffic.returned(self.loop.time() - call.flight.departed_s)
        if not self.open:
            self._forget_unused()

    def expire(self, now: float) -> None:
        for call in [call for call in self.open if call.deadline_s <= now]:
            call.fail(DeadlineExceeded(f"{call.method} at {self._address} took too long"))

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._connections):
            connection.abort()
        for call in self.open:
            call.fail(Unavailable("this process is stopping"))

    # ---- departures

    def _depart_soon(self) -> None:
        """With whoever else comes in this turn of the loop."""
        if self._departs_now:
            return
        if self._departure is not None:
            self._departure.cancel()
        self._departs_now = True
        self._departure = self.loop.call_soon(self._depart_held)

    def _depart_held(self) -> None:
        self._departure, self._departs_now = None, False
        held = [call for call in self._held if not call.answer.done()]
        self._held = held[TOGETHER_MAX:]
        if held:
            self._depart(held[:TOGETHER_MAX])
        if self._held:
            self._depart_soon()

    def _depart(self, calls: Sequence[_Call]) -> None:
        flight = _Flight(self.loop.time())
        for call in calls:
            call.flight = flight
        connection = self._connection()
        if connection is not None:
            connection.send(calls)
            return
        self._boarding.append(calls)
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect())

    # ---- connections

    def _connection(self) -> _Connection | None:
        """The one to send on; None when a new one should be made for it."""
        usable = [connection for connection in self._connections if connection.usable]
        best = min(usable, key=_load, default=None)
        if best is None or (best.waiting and len(usable) < self._client.connections_per_address):
            return best if best is not None and self._connecting is not None else None
        return best

    async def _connect(self) -> None:
        """Make a connection and send what waits for it. One who gives up does not end it for the others."""
        try:
            host, port = frames.split_address(self._address)
            async with asyncio.timeout(self._client.connect_timeout_s):
                _, connection = await self.loop.create_connection(self._new_connection, host, port)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            refused = Unavailable(f"cannot reach {self._address}: {error or type(error).__name__}")
            for calls in self._board():
                for call in calls:
                    call.fail(refused)
            self._forget_unused()
            return
        self._connections.append(connection)
        for calls in self._board():
            waiting = [call for call in calls if not call.answer.done()]
            if waiting:
                connection.send(waiting)

    def _board(self) -> list[Sequence[_Call]]:
        self._connecting = None
        boarding, self._boarding = self._boarding, []
        return boarding

    def _new_connection(self) -> _Connection:
        return _Connection(self._address, self._client.frame_bytes_max, self._lost)

    def _lost(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        self._forget_unused()

    def _forget_unused(self) -> None:
        if not self.open and not self._connections and self._connecting is None:
            self._client.forget(self._address)


def _load(connection: _Connection) -> int:
    return len(connection.waiting)


class _Connection(asyncio.Protocol):
    """One connection and the calls in flight on it."""

    def __init__(self, address: str, frame_bytes_max: int, lost: Callable[[_Connection], None]) -> None:
        self.waiting: dict[int, _Call] = {}
        self._address = address
        self._on_lost = lost
        self._reader = FrameReader(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._last_number = 0
        self._leaving = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._leaving and not self._transport.is_closing()

    def send(self, calls: Sequence[_Call]) -> None:
        if self._transport is None or not self.usable:  # lost as soon as it was made
            self._fail(calls)
            return
        headers = []
        for call in calls:
            self._last_number += 1
            call.number, call.connection = self._last_number, self
            self.waiting[call.number] = call
            timeout_ms = max(1, int((call.deadline_s - call.peer.loop.time()) * 1000))
            headers.append(CallHeader(call.number, call.method, call.request_id, timeout_ms, len(call.payload)))
        self._transport.writelines(frames.framed(FrameKind.CALLS, headers, [call.payload for call in calls]))

    def let_go(self, call: _Call) -> None:
        """The call has ended; when that was without an answer, the server may stop working on it."""
        if self.waiting.pop(call.number, None) is not None and self._transport and not self._transport.is_closing():
            self._transport.writelines(frames.framed(FrameKind.CANCEL, [call.number], ()))

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

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self.waiting = self.waiting, {}
        self._fail(waiting.values())
        self._on_lost(self)

    def _fail(self, calls: Iterable[_Call]) -> None:
        for call in calls:
            call.fail(Unavailable(f"the connection to {self._address} was lost"))

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.LEAVING:
            self._leaving = True
            return
        if frame.kind is not FrameKind.ANSWERS:
            raise BadFrame(f"unexpected {frame.kind.name}")
        for header, payload in frames.answers_of(frame):
            call = self.waiting.get(header.number)
            if not header.more:
                self.waiting.pop(header.number, None)
            if call is None or call.answer.done():
                continue  # nobody waits any more; the cancel crossed the answer
            if header.more:
                if call.parts is None:
                    raise BadFrame("parts that were not asked for")
                call.parts.add(payload)
                continue
            if header.code:
                call.answer.set_exception(_error(header))
            else:
                call.answer.set_result(payload)


def _error(header: AnswerHeader) -> PolychromeError:
    return BY_CODE.get(header.code, PolychromeError)(header.message)
