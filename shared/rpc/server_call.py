"""A call as its server keeps it: what it asks for, and the ways to answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from shared import errors, limits
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.frames import FRAME_CALLS_MAX, AnswerHeader, CallHeader
from shared.rpc.outgoing import UNLIMITED, LongAnswer

OK: Final = "ok"
CANCELLED: Final = "cancelled"

NOTHING: Final = memoryview(b"")

MESSAGE_BYTES_MAX: Final = limits.RPC_HEADER_BYTES_MAX // (2 * FRAME_CALLS_MAX)
"""Most bytes of an error's message: the headers of a frame full of errors take half of what they may. The name of a
damaged object fits.
"""

log = telemetry.get_logger(__name__)


class AnswerConnection(Protocol):
    """The connection that the answer goes to (`shared.rpc.server_connection`)."""

    loop: asyncio.AbstractEventLoop
    answer_bytes_max: int

    def call_ended(self, number: int, method: str, code: str, call: Call) -> None:
        """The call has its answer, or has failed with `code`, or nobody waits for it any more."""

    def send(self, header: AnswerHeader, payload: bytes) -> None:
        """Sends the answer to a call that has just ended, with others that are ready in the same turn of the loop."""

    def send_slice(self, header: AnswerHeader, payload: memoryview) -> None:
        """Sends some of a long answer, at once."""

    def hold(self, answer: LongAnswer, payload: bytes, wanted: Callable[[], None] | None) -> None:
        """Takes the next piece of a long answer, as `SendQueue.hold`."""

    def grant(self, answer: LongAnswer, size: int) -> None:
        """Grants the sending of so many more bytes of a long answer."""


class Call:
    """A call. `answer` or `fail` ends it; only the first of both counts.

    `payload` is the request, encoded; `deadline_s` is in the loop's time; `done` says that nobody waits for an answer
    any more: work on it is then not worth going on with. `tenant` is for whom the call is made, and `cost` what its
    caller estimates, 0 when it says nothing. `long_answer` is the answer from its first piece on, if it is sent as the
    caller grants.
    """

    __slots__ = (
        "_bytes", "_bytes_scanned", "_connection", "_method", "_number", "_rows_scanned", "_window", "begun_s", "cost",
        "deadline_s", "done", "long_answer", "payload", "request_id", "tenant", "took_s",
    )  # fmt: skip

    def __init__(self, connection: AnswerConnection, header: CallHeader, payload: memoryview, now_s: float) -> None:
        self.payload = payload
        self.request_id = header.request_id
        self.tenant = header.tenant
        self.cost = header.cost
        self.begun_s = now_s
        self.deadline_s = now_s + header.timeout_ms / 1000
        self.done = False
        self.took_s: float | None = None
        """Time until a long answer began; how fast it is read is not the server's doing."""
        self._bytes = 0
        self._rows_scanned = self._bytes_scanned = 0
        self._connection = connection
        self.long_answer: LongAnswer | None = None
        self._method = header.method
        self._number = header.number
        self._window = header.window

    def is_done(self) -> bool:
        """`done`, as a function, for any thread."""
        return self.done

    def scanned(self, rows: int, size: int) -> None:
        """Has the caller told, with the end of the answer, how many rows and bytes were looked at for it."""
        self._rows_scanned, self._bytes_scanned = rows, size

    def answer(self, payload: bytes) -> None:
        """Ends the call with its result, or with the last piece of it."""
        if self.done or not self._fits(payload):
            return
        if self.long_answer is None and (not self._window or len(payload) <= self._window):
            self._end(OK)
            self._connection.send(self._header(len(payload), more=False, paced=False), payload)
        else:
            self._hold(payload, None)

    def chunk(self, payload: bytes, wanted: Callable[[], None]) -> None:
        """Sends a piece of the result to a caller that takes it in pieces.

        `wanted` is called when all of it was sent and the next piece is to be made, for another `chunk` or, the last
        one, for `answer`. It is not called if the call ends before: since the caller cancels it, grants nothing for
        `limits.RPC_UNREAD_S_MAX` seconds, or has taken `limits.RPC_ANSWER_S_MAX` seconds in all.
        """
        if not self.done and self._fits(payload):
            self._hold(payload, wanted)

    def fail(self, error: BaseException) -> None:
        """Ends the call with an error. An error that is not of the project's family is logged, and «internal» to the
        caller.
        """
        if self.done:
            return
        if isinstance(error, asyncio.CancelledError):  # the work was given up here; nobody may be left waiting
            error = errors.Unavailable("cancelled")
        if not isinstance(error, errors.PolychromeError):
            log.error("call_failed", method=self._method, request_id=self.request_id, exc_info=error)
            error = errors.PolychromeError("internal error")
        self._end(error.code)
        message = error.message.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")
        self._connection.send(AnswerHeader(self._number, 0, error.code, message), b"")

    def abandon(self) -> None:
        """Ends the call without an answer: nobody waits for it any more."""
        if not self.done:
            self._end(CANCELLED)

    def _fits(self, payload: bytes) -> bool:
        """Whether the answer, with what was sent of it before, is not too long; else the call has failed."""
        self._bytes += len(payload)
        fits = self._bytes + frames.ANSWER_BYTES_MAX <= self._connection.answer_bytes_max
        if not fits:
            self.fail(errors.InvalidArgument(f"the answer has {self._bytes} bytes; ask for less"))
        return fits

    def _end(self, code: str) -> None:
        self.done = True
        self._connection.call_ended(self._number, self._method, code, self)

    # ---- long answers

    def _hold(self, payload: bytes, wanted: Callable[[], None] | None) -> None:
        if self.long_answer is None:
            self.long_answer = LongAnswer(self, self._window or UNLIMITED)
            self.took_s = self._connection.loop.time() - self.begun_s
            self.payload = NOTHING  # not needed for as long as a slow caller takes
        self._set_deadline()
        self._connection.hold(self.long_answer, payload, wanted)

    def _set_deadline(self) -> None:
        """From its beginning on an answer has as long as its caller keeps reading, within a limit. A caller that grants
        no credit has only the time that it said.
        """
        if self._window:
            now_s = self._connection.loop.time()
            self.deadline_s = min(now_s + limits.RPC_UNREAD_S_MAX, self.begun_s + limits.RPC_ANSWER_S_MAX)

    def grant(self, size: int) -> None:
        """The caller takes so many bytes more. For an answer that has ended, or not begun, it means nothing."""
        if self.long_answer is not None and not self.done:
            self._set_deadline()
            self._connection.grant(self.long_answer, size)

    def send_slice(self, payload: memoryview, *, is_last: bool) -> None:
        """Sends the next bytes of a long answer, in its turn (`shared.rpc.outgoing`)."""
        if is_last:
            self._end(OK)
        header = self._header(len(payload), more=not is_last, paced=self._window > 0)
        self._connection.send_slice(header, payload)

    def _header(self, size: int, *, more: bool, paced: bool) -> AnswerHeader:
        if more:
            return AnswerHeader(self._number, size, more=True, paced=paced)
        return AnswerHeader(self._number, size, "", "", False, paced, self._rows_scanned, self._bytes_scanned)

    def cut(self) -> None:
        """Fails a long answer that is read too slowly when others need the memory (`shared.rpc.outgoing`)."""
        self.fail(errors.Unavailable("the answer was not read, and its memory is needed"))


Serve = Callable[[Sequence[Call]], None]
"""Serves the calls of one method that came together, and answers each of them, now or later."""
