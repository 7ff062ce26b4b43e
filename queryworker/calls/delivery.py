"""Hands the outcomes of calls to their callers: at once, chunk by chunk, or only if it turns out to be right."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from queryworker.calls.method import CallOutcome
from queryworker.thread_pool import ThreadPool
from queryworker.view.read_view import ReadView
from shared.rpc.server_call import Call

Deliver = Callable[[Sequence[Call], Sequence[CallOutcome] | None, BaseException | None], None]
"""Takes the calls of a batch with their outcomes, or with the error that ended the whole batch."""


def fail_all(calls: Sequence[Call], error: BaseException) -> None:
    """Fail every call that was not answered yet."""
    for call in calls:
        call.fail(error)


class Delivery:
    """Answers calls. Chunks of long answers are made in the threads, each when the one before was sent: a caller that
    reads slowly keeps no thread busy.
    """

    def __init__(self, threads: ThreadPool) -> None:
        self._threads = threads

    def deliver(
        self, calls: Sequence[Call], outcomes: Sequence[CallOutcome] | None, error: BaseException | None
    ) -> None:
        """Answer the calls of a batch."""
        if error is not None:
            fail_all(calls, error)
        for outcome in outcomes or ():
            if outcome.error is not None:
                outcome.call.fail(outcome.error)
            elif outcome.rest is None:
                outcome.call.answer(outcome.answer)
            else:
                self._send_chunk(outcome.call, outcome.answer, outcome.rest)

    def _send_chunk(self, call: Call, chunk: bytes, rest: Iterator[bytes]) -> None:
        call.chunk(chunk, functools.partial(self._make_chunk, call, rest))

    def _make_chunk(self, call: Call, rest: Iterator[bytes]) -> None:
        self._threads.submit(functools.partial(self._chunk_made, call, rest), functools.partial(next, rest, None))

    def _chunk_made(self, call: Call, rest: Iterator[bytes], chunk: bytes | None, error: BaseException | None) -> None:
        if error is not None:
            call.fail(error)
        elif chunk is None:
            call.answer(b"")
        else:
            self._send_chunk(call, chunk, rest)


class Speculation:
    """Holds back what was made of calls from a view that a currency check may still find outdated. Then the check
    either confirms it, or it is dropped.
    """

    def __init__(self, view: ReadView, deliver: Deliver) -> None:
        """`view` is what the answers are made from, `deliver` what gets them when they turn out to be right."""
        self.view = view
        self._deliver = deliver
        self._held: list[tuple[Sequence[Call], Sequence[CallOutcome] | None, BaseException | None]] = []
        self._confirmed = False
        self.dropped = False
        """Whether work that has not begun is not worth beginning. Read by threads."""

    def deliver(
        self, calls: Sequence[Call], outcomes: Sequence[CallOutcome] | None, error: BaseException | None
    ) -> None:
        """Take the outcomes of a batch."""
        if self._confirmed:
            self._deliver(calls, outcomes, error)
        elif not self.dropped:
            self._held.append((calls, outcomes, error))

    def confirm(self) -> None:
        """The view is current: deliver what was made, and what will be."""
        self._confirmed = True
        for calls, outcomes, error in self._held:
            self._deliver(calls, outcomes, error)
        self._held.clear()

    def drop(self) -> None:
        """The view is outdated: deliver nothing."""
        self.dropped = True
        self._held.clear()
