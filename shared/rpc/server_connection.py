"""A connection of a server to a peer that calls it: the calls in flight, and their answers on the way out.

Answers that are ready in one turn of the loop leave together. Long ones leave in slices behind them, as far as their
callers have granted (`shared.rpc.outgoing`).
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, cast

import msgspec
from prometheus_client import Counter, Histogram

from shared import errors
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.authenticity import NONCE_BYTES, ServerHandshake
from shared.rpc.frame_seal import FrameSeal
from shared.rpc.frames import FRAME_CALLS_MAX, OWN_FRAME_BYTES, AnswerHeader, BadFrame, Frame, FrameKind, FrameReader
from shared.rpc.outgoing import LongAnswer, SendQueue, UnsentBytes
from shared.rpc.server_call import Call, Serve
from shared.rpc.waiting_calls import WaitingCalls

UNREAD_BYTES_MAX: Final = 1024 * 1024
"""A peer that leaves more bytes of answers unread gets no more calls served."""

WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""When the calls of a peer that are not taken up take more memory, further ones are refused."""

PROOF_S: Final = 2.0
"""Longest time that a peer may take to prove itself, in seconds."""

log = telemetry.get_logger(__name__)
CALL_SECONDS = Histogram(
    "polychrome_rpc_call_seconds", "Time to answer a call.", ["method"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
CALLS = Counter(
    "polychrome_rpc_calls_total", "Calls answered, by error code («ok» when there was none).", ["method", "code"]
)
FRAME_CALLS = Histogram(
    "polychrome_rpc_frame_calls", "Calls that came together.", buckets=(1, 2, 4, 8, 16, 32, FRAME_CALLS_MAX)
)
BAD_CONNECTIONS = Counter("polychrome_rpc_bad_connections_total", "Connections closed for not speaking the protocol.")


@functools.cache
def _counter(method: str, code: str) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return CALLS.labels(method, code)


@functools.cache
def _histogram(method: str) -> Histogram:
    return CALL_SECONDS.labels(method)


def _refuse(calls: Sequence[Call]) -> None:
    for call in calls:
        call.fail(errors.WrongWorker("draining"))


def _refuse_more(calls: Sequence[Call]) -> None:
    for call in calls:
        call.fail(errors.Unavailable("too many calls wait"))


def _no_such_method(calls: Sequence[Call]) -> None:
    for call in calls:
        call.fail(errors.Unimplemented("no such method"))


class ConnectionOwner(Protocol):
    """The server that a connection belongs to (`shared.rpc.server`)."""

    @property
    def methods(self) -> Mapping[str, Serve]: ...

    @property
    def secrets(self) -> Sequence[bytes]: ...

    connections: set[ServerConnection]
    unproven: dict[ServerConnection, None]
    unsent: UnsentBytes
    calls_max: int
    frame_bytes_max: int
    draining: bool

    def note_unproven(self, connection: ServerConnection) -> None:
        """A connection was opened whose peer has still to prove itself."""

    def note_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls have come, with deadlines."""

    def note_closed(self) -> None:
        """A connection has closed."""


class ServerConnection(asyncio.Protocol):
    """`calls` are those that are not answered, or not wholly, by the numbers that the peer gave them. `secret` is the
    one by which the peer has proved itself, None where it need not or has not yet.
    """

    def __init__(self, server: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.calls: dict[int, Call] = {}
        self.loop = loop
        self.answer_bytes_max = server.frame_bytes_max
        self.secret: bytes | None = None
        self._handshake: ServerHandshake | None = None
        self._proof_timer: asyncio.TimerHandle | None = None
        self._seal: FrameSeal | None = None
        self._server = server
        self._reader = FrameReader(server.frame_bytes_max)
        self._long_answers = SendQueue(server.unsent)
        self._waiting = WaitingCalls()
        self._transport: asyncio.Transport | None = None
        self._ready: list[tuple[AnswerHeader, bytes]] = []
        self._tally: Tally[tuple[str, str]] = Tally()
        self._is_reading = True
        self._is_writable = True
        self._is_leaving = False
        self._is_finished = False
        self._flush_is_due = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        frames.tune(transport.get_extra_info("socket"))
        self._server.connections.add(self)
        secrets = self._server.secrets
        if secrets:
            self._handshake = ServerHandshake(secrets, os.urandom(NONCE_BYTES))
            self._proof_timer = self.loop.call_later(PROOF_S, self._refuse_peer, "it has not proved itself in time")
            self._server.note_unproven(self)
        elif self._server.draining:
            self.leave()

    def data_received(self, data: bytes) -> None:
        if self._is_finished:
            return  # calls that crossed the end of this side; their caller sees it close, and asks elsewhere
        try:
            if self._handshake is not None:
                data = self._prove(self._handshake, data)
            for frame in self._reader.feed(data):
                self._accept(frame)
        except (BadFrame, msgspec.MsgspecError) as error:
            self._refuse_peer(str(error))

    def _prove(self, handshake: ServerHandshake, data: bytes) -> bytes:
        """Goes on with the opening of the connection; returns what has come behind it. Raises NotAuthentic."""
        reply = handshake.feed(data)
        if reply and self._transport is not None:
            self._transport.write(reply)
        if handshake.channel is None:
            return b""
        self._proof_ended()
        self._handshake = None
        self._seal, self.secret = handshake.channel.outgoing, handshake.channel.secret
        self._reader.expect_tags(handshake.channel.incoming)
        if self._server.draining:
            self.leave()
        return handshake.rest

    def _proof_ended(self) -> None:
        if self._proof_timer is not None:
            self._proof_timer.cancel()
        self._server.unproven.pop(self, None)

    def _refuse_peer(self, why: str) -> None:
        """Drops a connection whose peer does not do as it must."""
        BAD_CONNECTIONS.inc()
        peer = self._transport.get_extra_info("peername") if self._transport else None
        log.warning("bad_frame", peer=peer, error=why)
        self.abort()

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._proof_ended()
        self._server.connections.discard(self)
        for call in list(self.calls.values()):
            call.abandon()
        self._server.note_closed()

    # ---- calls

    def leave(self) -> None:
        """Tells the peer to send its calls elsewhere; this side of the connection ends with the last answer. A peer
        that has still to prove itself is told when it has.
        """
        if self._handshake is not None:
            return
        if not self._is_leaving:
            self._is_leaving = True
            self._write(FrameKind.LEAVING, (), ())
            self._serve(self._waiting.take(len(self._waiting)))  # which refuses them
        self._finish_when_done()

    def abort(self) -> None:
        """Drops the connection."""
        self._proof_ended()
        if self._transport is not None:
            self._transport.abort()

    def call_ended(self, number: int, method: str, code: str, call: Call) -> None:
        """The call has its answer, or has failed with `code`, or nobody waits for it any more."""
        del self.calls[number]
        if self._waiting.bytes:
            self._waiting.discard(call)
        if call.long_answer is not None:
            self._long_answers.forget(call.long_answer)
        method = method if method in self._server.methods else "unknown"
        took_s = self.loop.time() - call.begun_s if call.took_s is None else call.took_s
        self._tally[method, code] += 1
        _histogram(method).observe(took_s)
        log.debug("call", method=method, code=code, ms=round(took_s * 1000, 3), request_id=call.request_id)
        self._flush_soon()

    def send(self, header: AnswerHeader, payload: bytes) -> None:
        """Sends the answer to a call that has just ended, with others that are ready in the same turn of the loop."""
        self._ready.append((header, payload))

    def send_slice(self, header: AnswerHeader, payload: memoryview) -> None:
        """Sends some of a long answer, at once."""
        self._write(FrameKind.ANSWERS, (header,), (payload,))

    def hold(self, answer: LongAnswer, payload: bytes, wanted: Callable[[], None] | None) -> None:
        """Takes the next piece of a long answer, as `SendQueue.hold`."""
        self._long_answers.hold(answer, payload, wanted)
        self._flush_soon()

    def grant(self, answer: LongAnswer, size: int) -> None:
        """Grants the sending of so many more bytes of a long answer."""
        self._long_answers.grant(answer, size)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Sends what is ready at the end of this turn of the loop."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        ready, self._ready = self._ready, []
        together: list[tuple[AnswerHeader, bytes]] = []
        for place, answer in enumerate(ready, 1):
            together.append(answer)
            alone = len(answer[1]) > OWN_FRAME_BYTES or (place < len(ready) and len(ready[place][1]) > OWN_FRAME_BYTES)
            if alone or len(together) == FRAME_CALLS_MAX or place == len(ready):
                self._write(FrameKind.ANSWERS, *zip(*together, strict=True))
                together = []
        for (method, code), count in self._tally.items():
            _counter(method, code).inc(count)
        self._tally.clear()
        self._long_answers.send(self._may_write)
        self._take_up()
        self._finish_when_done()

    def _write(self, kind: FrameKind, headers: Sequence[AnswerHeader], payloads: Sequence[bytes | memoryview]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            buffers = frames.framed(kind, headers, payloads)
            if self._seal is not None:
                buffers.append(self._seal.tag(buffers))
            self._transport.writelines(buffers)

    def _finish_when_done(self) -> None:
        """Ends this side of the connection behind what is buffered when nothing more is to be sent. The other side is
        the peer's to end, when it has read everything.
        """
        done = self._is_leaving and not self._is_finished and not self.calls and not self._ready
        if done and self._transport is not None and not self._transport.is_closing():
            self._is_finished = True
            self._transport.write_eof()

    def _may_write(self) -> bool:
        return self._is_writable and self._transport is not None

    @property
    def _is_unread(self) -> bool:
        """Whether the peer takes no answers."""
        return (
            not self._is_writable
            and self._transport is not None
            and self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX
        )

    @property
    def _room(self) -> int:
        """How many calls more may be taken up: none for a peer that takes no answers, or waits for many.

        Long answers do not count. They wait for credit, and keep the connection full as a matter of course.
        """
        taken_up = len(self.calls) - len(self._waiting) - len(self._long_answers)
        return 0 if self._is_unread else max(0, self._server.calls_max - taken_up)

    def _take_up(self) -> None:
        """Takes up calls that waited. Reading is paused only for a peer that takes no answers, not even refusals, and
        goes on calling: nothing bounds what that would fill.
        """
        if self._transport is None:
            return
        if self._waiting and (room := self._room):
            self._serve(self._waiting.take(room))
        reading = self._waiting.bytes <= WAITING_BYTES_MAX or not self._is_unread
        if reading is not self._is_reading:
            self._is_reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.CANCEL:
            for number in frames.cancelled_of(frame):
                if (call := self.calls.get(number)) is not None:
                    call.abandon()
            return
        if frame.kind is FrameKind.CREDIT:
            for number, size in frames.credit_of(frame):
                if (call := self.calls.get(number)) is not None:
                    call.grant(size)
            return
        if frame.kind is not FrameKind.CALLS:
            raise BadFrame(f"unexpected {frame.kind.name}")
        now = self.loop.time()
        together: dict[str, list[Call]] = {}
        for header, payload in frames.calls_of(frame):
            if header.number in self.calls:
                raise BadFrame(f"call {header.number} again")
            call = self.calls[header.number] = Call(self, header, payload, now)
            together.setdefault(header.method, []).append(call)
        FRAME_CALLS.observe(sum(map(len, together.values())))
        self._server.note_calls(self.loop)
        if self._is_leaving or (self._room and not self._waiting):
            self._serve(together)
        else:
            self._keep_waiting(together)

    def _keep_waiting(self, together: Mapping[str, Sequence[Call]]) -> None:
        for method, calls in together.items():
            if self._waiting.bytes > WAITING_BYTES_MAX:
                _refuse_more(calls)
                continue
            for call in calls:
                self._waiting.add(call, method)
        self._take_up()

    def _serve(self, together: Mapping[str, Sequence[Call]]) -> None:
        for method, calls in together.items():
            serve = _refuse if self._is_leaving else self._server.methods.get(method, _no_such_method)
            try:
                serve(calls)
            except Exception as error:
                for call in calls:
                    call.fail(error)
