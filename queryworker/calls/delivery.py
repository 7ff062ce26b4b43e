"""Hands the outcomes of calls to their callers: at once, chunk by chunk, or only if it turns out to be right."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from queryworker.calls.method import CallOutcome
from queryworker.thread_pool import ThreadPool
from queryworker.view.read_view import ReadView
from shared.process.work import Work
from shared.rpc.messages import Shard
from shared.rpc.server_call import Call

Deliver = Callable[[Sequence[Call], Sequence[CallOutcome] | None, BaseException | None], None]
"""Takes the calls of a batch with their outcomes, or with the error that ended the whole batch."""


def fail_all(calls: Sequence[Call], error: BaseException) -> None:
    """Fail every call that was not answered yet."""
    for call in calls:
        call.fail(error)


class ReadSource(NamedTuple):
    """The shard that calls read, and the view that they are answered from."""

    shard: Shard
    view: ReadView


class Delivery:
    """Answers calls. Chunks of long answers are made in the threads, each when the one before was sent: a caller that
    reads slowly keeps no thread busy.

    `failed` gives the error to tell for one that a read has met. It may take its time: the view's files are compared
    with their checksums where they may be damaged.
    """

    def __init__(
        self, threads: ThreadPool, failed: Callable[[Shard, ReadView, Exception], Awaitable[Exception]]
    ) -> None:
        self._threads = threads
        self._failed = failed
        self._failing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Gives up the calls whose errors are looked into."""
        for task in self._failing:
            task.cancel()
        await asyncio.gather(*self._failing, return_exceptions=True)

    def deliver(
        self,
        source: ReadSource,
        calls: Sequence[Call],
        outcomes: Sequence[CallOutcome] | None,
        error: BaseException | None,
    ) -> None:
        """Answer the calls of a batch."""
        if error is not None:
            fail_all(calls, error)
        for outcome in outcomes or ():
            if outcome.error is not None:
                self._fail(source, outcome.call, outcome.error)
            elif outcome.rest is None:
                outcome.call.answer(outcome.answer)
            else:
                self._send_chunk(source, outcome.call, outcome.answer, outcome.rest)

    def _fail(self, source: ReadSource, call: Call, error: BaseException) -> None:
        if call.done:
            return
        if not isinstance(error, Exception):
            call.fail(error)
            return
        task = asyncio.create_task(self._tell(source, call, error))
        self._failing.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._failing.discard)

    async def _tell(self, source: ReadSource, call: Call, error: Exception) -> None:
        try:
            told = await self._failed(source.shard, source.view, error)
        except BaseException:
            call.fail(error)
            raise
        call.fail(told)

    def _send_chunk(self, source: ReadSource, call: Call, chunk: bytes, rest: Iterator[bytes]) -> None:
        call.chunk(chunk, functools.partial(self._make_chunk, source, call, rest))

    def _make_chunk(self, source: ReadSource, call: Call, rest: Iterator[bytes]) -> None:
        done = functools.partial(self._chunk_made, source, call, rest)
        work = Work(given_up=call.is_done)  # a long answer has no deadline but that its caller reads
        self._threads.submit(done, functools.partial(work.do, functools.partial(next, rest, None)), call.tenant)

    def _chunk_made(
        self, source: ReadSource, call: Call, rest: Iterator[bytes], chunk: bytes | None, error: BaseException | None
    ) -> None:
        if error is not None:
            self._fail(source, call, error)
        elif chunk is None:
            call.answer(b"")
        else:
            self._send_chunk(source, call, chunk, rest)


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
        """Whether the work is not worth beginning, or going on with. Read by threads."""

    def is_dropped(self) -> bool:
        """`dropped`, as a function."""
        return self.dropped

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
