"""A pool of threads that work for one event loop.

`concurrent.futures` makes two futures of every call, with a lock and a condition each, and wakes the loop for every
result. Half of the reads take less than that costs. So here a job has a function to be called back on the loop, and
results that are ready together wake the loop once.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, ParamSpec, Protocol, TypeVar, cast

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Callback = Callable[[Result | None, BaseException | None], None]
"""Called on the event loop with a job's result and None, or with None and what the job raised."""


class _Runnable(Protocol):
    def run(self) -> None:
        """Do the job, in a thread. Raises nothing."""
        ...

    def deliver(self) -> None:
        """Call back, on the loop."""
        ...


class _Job(Generic[Result]):
    __slots__ = ("_callback", "_error", "_result", "_work")

    def __init__(self, callback: Callback[Result], work: Callable[[], Result]) -> None:
        self._callback = callback
        self._work: Callable[[], Result] | None = work
        self._result: Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        work, self._work = self._work, None  # what it holds is let go of when it has ended
        assert work is not None
        try:
            self._result = work()
        except BaseException as error:
            self._error = error

    def deliver(self) -> None:
        self._callback(self._result, self._error)


class ThreadPool:
    """`count` threads, for the event loop that runs when they are made; all methods are called on that loop."""

    def __init__(self, count: int, name: str, nice: int = 0) -> None:
        """`nice` above 0: the threads give way to all others of the machine, where threads have priorities of their own
        (Linux).
        """
        self._loop = asyncio.get_running_loop()
        self._queued: queue.SimpleQueue[_Runnable | None] = queue.SimpleQueue()
        self._done: deque[_Runnable] = deque()
        self._pending = 0
        self._closed = False
        self._nice = nice if sys.platform == "linux" else 0
        self._wakeup_scheduled = False
        """Whether the loop was told that results are there. Set by the threads, cleared by the loop before it takes the
        results: a thread that saw it set has put its result where the loop is still to look.
        """
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def idle(self) -> bool:
        """Whether every job that was submitted has ended and was called back."""
        return self._pending == 0

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The result of `work(*args, **kwargs)` in a thread; raises what it raises. When cancelled before a thread took
        it up, the work never begins; after that, it goes on and its result is dropped.
        """
        outcome: asyncio.Future[Result | None] = self._loop.create_future()

        def unless_cancelled() -> Result | None:
            return None if outcome.cancelled() else work(*args, **kwargs)

        def settle(result: Result | None, error: BaseException | None) -> None:
            if outcome.done():
                return  # cancelled
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        self.submit(settle, unless_cancelled)
        return cast(Result, await outcome)  # None only where that is the result

    def submit(self, callback: Callback[Result], work: Callable[[], Result]) -> None:
        """Do `work()` in a thread, then call `callback` on the loop with its result or what it raised. Raises
        RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the threads are closed")
        self._pending += 1
        self._queued.put(_Job(callback, work))

    async def close(self) -> None:
        """Take no more jobs, and wait until those that were submitted have ended. Callbacks are called after that."""
        self._closed = True
        for _ in self._threads:
            self._queued.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while (job := self._queued.get()) is not None:
            job.run()
            self._done.append(job)
            del job  # while waiting for the next job, nothing of this one is held
            if not self._wakeup_scheduled:
                self._wakeup_scheduled = True
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._wakeup_scheduled = False
        while self._done:
            job = self._done.popleft()
            self._pending -= 1
            try:
                job.deliver()
            except Exception as failure:  # reported by the loop, as of any other callback; others wait behind it
                self._loop.call_exception_handler({"message": "a callback failed", "exception": failure})
