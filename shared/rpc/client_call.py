"""A call as its caller's side keeps it, from the asking to the end of its answer."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol

from shared.errors import BY_CODE, PolychromeError
from shared.process import metering, telemetry
from shared.rpc.answer_budget import AnswerBudget
from shared.rpc.chunks import Answer, ChunkStream
from shared.rpc.frames import AnswerHeader, BadFrame

TENANT_CHARACTERS_MAX: Final = 128
"""Tenants that agree in so many characters of their names share a queue: the headers of a frame are bounded."""

NOT_SENT: Final = 0
"""Number of a call that was not sent yet."""


class CallOwner(Protocol):
    """Keeps the calls to one address (`shared.rpc.peer`)."""

    loop: asyncio.AbstractEventLoop
    answers: AnswerBudget

    def answer_began(self, call: ClientCall) -> None:
        """The first chunk of the answer has come."""

    def call_ended(self, call: ClientCall) -> None:
        """The call has its whole answer, or has failed, or nobody waits for it any more. May be said twice."""


class CallConnection(Protocol):
    """The connection that a call was sent on (`shared.rpc.client_connection`)."""

    def end(self, call: ClientCall) -> None:
        """The call has ended; when that was without an answer, the server may stop working on it."""

    def grant(self, call: ClientCall, size: int) -> None:
        """The server may send so many bytes more of the answer."""


class FrameInFlight:
    """A frame of calls that was sent. It counts as answered when the first of its calls has ended, however it did."""

    __slots__ = ("is_answered", "sent_s")

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.is_answered = False


class ClientCall:
    """A call. `answer` is done when the answer has come or begun to come; `stream` is the answer from its first chunk
    to its end, for long ones.
    """

    __slots__ = (
        "answer", "connection", "cost", "deadline_s", "frame", "meter", "method", "number", "owner", "payload",
        "request_id", "stream", "tenant", "timeout_s", "window",
    )  # fmt: skip

    def __init__(
        self, owner: CallOwner, method: str, payload: bytes, timeout_s: float, window: int, cost: float = 0.0
    ) -> None:
        """`window`: bytes of the answer that may come before more is granted; 0: all of it, as a whole."""
        self.owner = owner
        self.method = method
        self.payload = payload
        self.request_id = telemetry.request_id.get()
        self.tenant = telemetry.tenant.get()[:TENANT_CHARACTERS_MAX]
        self.meter = metering.current.get()
        self.cost = cost
        self.timeout_s = timeout_s
        self.deadline_s = owner.loop.time() + timeout_s
        self.window = window
        self.number = NOT_SENT
        self.connection: CallConnection | None = None
        self.frame: FrameInFlight | None = None
        self.stream: ChunkStream | None = None
        self.answer: asyncio.Future[Answer] = owner.loop.create_future()
        self.answer.add_done_callback(self._answer_done)

    def fail(self, error: PolychromeError) -> None:
        """Ends the call, or the answer that has begun."""
        if self.stream is not None:
            self.stream.end(error)
        elif not self.answer.done():
            self.answer.set_exception(error)

    def _answer_done(self, _answer: asyncio.Future[Answer]) -> None:
        if self.stream is None:
            self.owner.call_ended(self)

    # ---- what comes from the server

    def end(self, header: AnswerHeader, payload: memoryview) -> None:
        """The answer, or the last chunk of it, or the failure."""
        if header.code:
            self.fail(BY_CODE.get(header.code, PolychromeError)(header.message))
            return
        if self.meter is not None and (self.stream is not None or not self.answer.done()):
            self.meter.scanned(header.rows_scanned, header.bytes_scanned)
        if self.stream is not None:
            self._add(self.stream, payload)
            self.stream.end()
        elif not self.answer.done():  # else it was cancelled, and the cancel crossed the answer
            self.answer.set_result(payload)

    def add_chunk(self, header: AnswerHeader, payload: memoryview) -> None:
        """A chunk that others follow. Raises BadFrame for what was not asked for."""
        if not self.window:
            raise BadFrame("chunks that were not asked for")
        if self.stream is not None:
            self._add(self.stream, payload)
        elif not self.answer.done():
            stream = self.stream = ChunkStream(self, self.owner.answers, self.window if header.paced else 0)
            self.payload = b""  # it is not needed for as long as a slow reader takes
            self._add(stream, payload)
            self.owner.answer_began(self)
            self.answer.set_result(stream)
            stream.resume()

    def _add(self, stream: ChunkStream, payload: memoryview) -> None:
        if not stream.add(payload):
            raise BadFrame("more of an answer than was granted")
        self._set_deadline(stream)

    def _set_deadline(self, stream: ChunkStream) -> None:
        """Each chunk may take as long as the first, from when the server may send it. The reader has none."""
        self.deadline_s = self.owner.loop.time() + self.timeout_s if stream.expects_more else math.inf

    # ---- what the reader of the chunks does

    def grant(self, size: int) -> None:
        """Lets the server send so many bytes more."""
        if self.stream is not None:
            self._set_deadline(self.stream)
        if self.connection is not None:
            self.connection.grant(self, size)

    def read_no_more(self) -> None:
        """Ends the call: nobody reads on, or nothing is left to be read."""
        self.stream = None
        self.owner.call_ended(self)
