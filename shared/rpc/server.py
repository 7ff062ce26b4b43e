"""The answering side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

A method is served by a plain function that is given the calls that came together, so that it can share work among them,
and answers each for itself, now or later. Errors of the project's family travel as code and message, anything else as
«internal» with its traceback in the log. A call is `done` when it was answered, when its caller has no time left, when
the caller cancelled it and when the connection is lost: work that has not begun is then not worth beginning.

Answers that are ready in one turn of the loop leave together.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec
from prometheus_client import Counter, Histogram

from shared import errors, limits
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
from shared.rpc.ticker import Ticker

log = telemetry.get_logger(__name__)
CALL_SECONDS = Histogram(
    "polychrome_rpc_call_seconds", "Time to answer a call.", ["method"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
CALLS = Counter(
    "polychrome_rpc_calls_total", "Calls answered, by error code («ok» when there was none).", ["method", "code"]
)
FRAME_CALLS = Histogram(
    "polychrome_rpc_frame_calls", "Calls that came together.", buckets=(1, 2, 4, 8, 16, 32, TOGETHER_MAX)
)
BAD_CONNECTIONS = Counter("polychrome_rpc_bad_connections_total", "Connections closed for not speaking the protocol.")


@functools.cache
def _counter(method: str, code: str) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return CALLS.labels(method, code)


@functools.cache
def _histogram(method: str) -> Histogram:
    return CALL_SECONDS.labels(method)


class Call:
    """One call. `answer` or `fail` ends it; only the first of both counts."""

    __slots__ = (
        "_bytes", "_connection", "_method", "_number", "begun_s", "deadline_s", "done", "payload", "request_id"
    )  # fmt: skip

    def __init__(self, connection: _Connection, header: CallHeader, payload: memoryview, now_s: float) -> None:
        self.payload = payload
        self.request_id = header.request_id
        self.begun_s = now_s
        self.deadline_s = now_s + header.timeout_ms / 1000
        self.done = False
        self._bytes = 0
        self._connection = connection
        self._number = header.number
        self._method = header.method

    def answer(self, payload: bytes) -> None:
        """That is the result."""
        if not self.done and self._fits(payload):
            self._end("ok")
            self._connection.send(AnswerHeader(self._number, len(payload)), payload)

    def part(self, payload: bytes) -> None:
        """That is a part of the result. Others follow, and `answer` gives the last."""
        if not self.done and self._fits(payload):
            self._connection.send(AnswerHeader(self._number, len(payload), more=True), payload)

    def _fits(self, payload: bytes) -> bool:
        """Whether the answer is no longer than it may be, with what was sent of it before; else it has failed."""
        self._bytes += len(payload)
        fits = self._bytes + frames.ANSWER_BYTES_MAX <= self._connection.server.frame_bytes_max
        if not fits:
            self.fail(errors.InvalidArgument(f"the answer has {self._bytes} bytes; ask for less"))
        return fits

    def fail(self, error: BaseException) -> None:
        """That is why there is none."""
        if self.done:
            return
        if isinstance(error, asyncio.CancelledError):  # the work was given up here; nobody may be left waiting
            error = errors.Unavailable("cancelled")
        if not isinstance(error, errors.PolychromeError):
            log.error("call failed", method=self._method, request_id=self.request_id, exc_info=error)
            error = errors.PolychromeError("internal error")
        self._end(error.code)
        message = error.message[: limits.RPC_HEADER_BYTES_MAX // (8 * TOGETHER_MAX)]
        self._connection.send(AnswerHeader(self._number, 0, error.code, message), b"")

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        if not self.done:
            self._end("cancelled")

    def _end(self, code: str) -> None:
        self.done = True
        self._connection.ended(self._number, self._method, code, self)


Serve = Callable[[Sequence[Call]], None]


def _refuse(calls: Sequence[Call]) -> None:
    for call in calls:
        call.fail(errors.WrongWorker("draining"))


def _no_such_method(calls: Sequence[Call]) -> None:
    for call in calls:
        call.fail(errors.Unimplemented("no such method"))


class RpcServer:
    """Listens, and hands calls to the functions that serve them, by method."""

    def __init__(
        self,
        methods: Mapping[str, Serve],
        *,
        calls_max: int = limits.RPC_CALLS_MAX,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
    ) -> None:
        self.methods = dict(methods)
        self.calls_max = calls_max
        self.frame_bytes_max = frame_bytes_max
        self.draining = False
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._ticker = Ticker(self._expire)
        self._all_closed = asyncio.Event()

    async def start(self, host: str, port: int) -> str:
        """Listen; the address as `host:port`, with the port that was given out where `port` is 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, loop), host, port)
        bound = self._server.sockets[0].getsockname()
        return frames.join_address(bound[0], bound[1])

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, refuse new calls with WrongWorker, and deliver the answers to the calls in flight; for at
        most `timeout_s` seconds.

        1. The listener closes. Every peer is told to send its calls elsewhere; those that cross this are refused.
        2. A connection on which the last call was answered is closed for writing once everything is sent. The peer
           reads to the end, then closes its side.
        3. Only that says that the answers have arrived, and draining waits for it. Closing both sides at once would
           not do: a socket that is closed while something unread lies in it, such as a call that crossed, is reset,
           and what it had still to deliver is lost.

        When the time is over, `close` drops what is left: a peer that reads nothing cannot hold the process up.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.leave()
        self.note_closed()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_closed.wait()
        except TimeoutError:
            calls = sum(len(connection.calls) for connection in self.connections)
            log.warning("answers left undelivered", connections=len(self.connections), calls_unanswered=calls)

    async def close(self) -> None:
        """Drop the connections, with whatever is still in flight on them."""
        self.draining = True
        self._ticker.stop()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    def begun(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticker.wake(loop)

    def note_closed(self) -> None:
        """Called when a connection has closed; what `drain` waits for is the last one."""
        if self.draining and not self.connections:
            self._all_closed.set()

    def _expire(self, now: float) -> bool:
        """Fail the calls whose time is over; whether any are left."""
        for connection in list(self.connections):
            for call in [call for call in connection.calls.values() if call.deadline_s <= now]:
                call.fail(errors.DeadlineExceeded("deadline exceeded"))
        return any(connection.calls for connection in self.connections)


class _Connection(asyncio.Protocol):
    """One peer."""

    def __init__(self, server: RpcServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.calls: dict[int, Call] = {}
        self._loop = loop
        self._reader = FrameReader(server.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._ready: list[tuple[AnswerHeader, bytes]] = []
        self._tally: Tally[tuple[str, str]] = Tally()
        self._reading = True
        self._writable = True
        self._leaving = False
        self._finished = False
        self._flush_due = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        frames.tune(transport.get_extra_info("socket"))
        self.server.connections.add(self)
        if self.server.draining:
            self.leave()

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return  # calls that crossed the end of this side; their caller sees the connection close and asks elsewhere
        try:
            for frame in self._reader.feed(data):
                self._accept(frame)
        except (BadFrame, msgspec.MsgspecError) as error:
            BAD_CONNECTIONS.inc()
            peer = self._transport.get_extra_info("peername") if self._transport else None
            log.warning("bad frame", peer=peer, error=str(error))
            self.abort()

    def pause_writing(self) -> None:
        self._writable = False
        self._choose_reading()  # a peer that takes no answers gets no more calls served

    def resume_writing(self) -> None:
        self._writable = True
        self._choose_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.server.connections.discard(self)
        for call in list(self.calls.values()):
            call.abandon()
        self.server.note_closed()

    # ---- calls

    def leave(self) -> None:
        """Tell the peer to call somebody else; this side of the connection ends with the last answer."""
        if not self._leaving:
            self._leaving = True
            self._write(FrameKind.LEAVING, (), ())
        self._finish_when_done()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def ended(self, number: int, method: str, code: str, call: Call) -> None:
        del self.calls[number]
        method = method if method in self.server.methods else "unknown"
        took_s = self._loop.time() - call.begun_s
        self._tally[method, code] += 1
        _histogram(method).observe(took_s)
        log.debug("call", method=method, code=code, ms=round(took_s * 1000, 3), request_id=call.request_id)
        self._flush_soon()

    def send(self, header: AnswerHeader, payload: bytes) -> None:
        self._ready.append((header, payload))
        self._flush_soon()

    def _flush_soon(self) -> None:
        """At the end of this turn of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        ready, self._ready = self._ready, []
        together: list[tuple[AnswerHeader, bytes]] = []
        for place, answer in enumerate(ready, 1):  # in their order: parts of one answer may be among them
            together.append(answer)
            alone = len(answer[1]) > ALONE_BYTES or (place < len(ready) and len(ready[place][1]) > ALONE_BYTES)
            if alone or len(together) == TOGETHER_MAX or place == len(ready):
                self._write(FrameKind.ANSWERS, *zip(*together, strict=True))
                together = []
        for (method, code), count in self._tally.items():
            _counter(method, code).inc(count)
        self._tally.clear()
        self._choose_reading()
        self._finish_when_done()

    def _write(self, kind: FrameKind, headers: Sequence[AnswerHeader], payloads: Sequence[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(frames.framed(kind, headers, payloads))

    def _finish_when_done(self) -> None:
        """Nothing more is to be sent: say so behind what is buffered, and go on reading until the peer closes too."""
        done = self._leaving and not self._finished and not self.calls and not self._ready
        if done and self._transport is not None and not self._transport.is_closing():
            self._finished = True
            self._transport.write_eof()

    def _choose_reading(self) -> None:
        reading = self._writable and len(self.calls) < self.server.calls_max
        if self._transport is not None and reading is not self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.CANCEL:
            for number in frames.cancelled_of(frame):
                if (call := self.calls.get(number)) is not None:
                    call.abandon()
            return
        if frame.kind is not FrameKind.CALLS:
            raise BadFrame(f"unexpected {frame.kind.name}")
        now = self._loop.time()
        together: dict[str, list[Call]] = {}
        for header, payload in frames.calls_of(frame):
            if header.number in self.calls:
                raise BadFrame(f"call {header.number} again")
            call = self.calls[header.number] = Call(self, header, payload, now)
            together.setdefault(header.method, []).append(call)
        self._serve(together)

    def _serve(self, together: Mapping[str, Sequence[Call]]) -> None:
        FRAME_CALLS.observe(sum(map(len, together.values())))
        self.server.begun(self._loop)
        for method, calls in together.items():
            serve = _refuse if self._leaving else self.server.methods.get(method, _no_such_method)
            try:
                serve(calls)
            except Exception as error:
                for call in calls:
                    call.fail(error)
        self._choose_reading()
