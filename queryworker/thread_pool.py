"""A pool of threads that work for one event loop.

`concurrent.futures` makes two futures of every call, with a lock and a condition each, and wakes the loop for every
result. Half of the reads take less than that costs. So here a job has a function to be called back on the loop, and
results that are ready together wake the loop once.

Jobs belong to tenants, which take turns by what their jobs cost in seconds of a thread (`shared.process.fair_queue`).
A job is not interrupted for another tenant's, so turns alone would let a few long jobs of one tenant hold all threads.
Therefore a pool may have a thread more than it is said to have, which takes no job of a tenant that runs as many as
there are others: a tenant never has all threads, and loses nothing by that while it is alone.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, ParamSpec, Protocol, TypeVar, cast

from shared.process.fair_queue import FairQueue

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Callback = Callable[[Result | None, BaseException | None], None]
"""Called on the event loop with a job's result and None, or with None and what the job raised."""

USUAL_COST_S: Final = 0.0005
"""Cost of a job of which nothing is known, in seconds of a thread."""

QUANTUM_S: Final = 0.002
"""A tenant's turn, in seconds of a thread: a few usual jobs."""


class _Runnable(Protocol):
    tenant: str
    cost_s: float

    def run(self) -> None:
        """Do the job, in a thread. Raises nothing."""
        ...

    def deliver(self) -> None:
        """Call back, on the loop."""
        ...


class _Job(Generic[Result]):
    __slots__ = ("_callback", "_error", "_result", "_work", "cost_s", "tenant")

    def __init__(self, callback: Callback[Result], work: Callable[[], Result], tenant: str, cost_s: float) -> None:
        self.tenant = tenant
        self.cost_s = cost_s
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

    def __init__(self, count: int, name: str, nice: int = 0, *, spare: bool = False) -> None:
        """`nice` above 0: the threads give way to all others of the machine, where threads have priorities of their own
        (Linux). `spare`: one more thread for when all others run jobs of the same tenant.
        """
        self._loop = asyncio.get_running_loop()
        self._tenant_max = count
        self._queued: FairQueue[_Runnable] = FairQueue(QUANTUM_S)
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        """Guards the queue, and the number of running jobs of each tenant."""
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Wakes a thread that waits: True for each job that was queued, whoever takes it; False: to end."""
        self._done: deque[_Runnable] = deque()
        self._pending = 0
        self._closed = False
        self._nice = nice if sys.platform == "linux" else 0
        self._wakeup_scheduled = False
        """Whether the loop was told that results are there. Set by the threads, cleared by the loop before it takes the
        results: a thread that saw it set has put its result where the loop is still to look.
        """
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(count + spare)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def idle(self) -> bool:
        """Whether every job that was submitted has ended and was called back."""
        return self._pending == 0

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """`run_for` nobody."""
        return await self.run_for("", work, *args, **kwargs)

    async def run_for(
        self, tenant: str, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
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

        self.submit(settle, unless_cancelled, tenant)
        return cast(Result, await outcome)  # None only where that is the result

    def submit(
        self,
        callback: Callback[Result],
        work: Callable[[], Result],
        tenant: str = "",
        cost_s: float = USUAL_COST_S,
    ) -> None:
        """Do `work()` in a thread when it is the tenant's turn, then call `callback` on the loop with its result or
        what it raised. `cost_s` is an estimate of how long it takes. Raises RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the threads are closed")
        self._pending += 1
        with self._lock:
            self._queued.put(tenant, cost_s, _Job(callback, work, tenant, cost_s))
        self._wakes.put(True)

    async def close(self) -> None:
        """Take no more jobs, and wait until those that were submitted have ended. Callbacks are called after that."""
        self._closed = True
        for _ in self._threads:
            self._wakes.put(False)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        goes_on = True
        while goes_on:
            goes_on = self._wakes.get()
            job = self._next(None, 0.0)
            while job is not None:  # those, too, whose wakes were for threads that could not take them
                began_s = time.perf_counter()
                job.run()
                ended, job = job, self._next(job, time.perf_counter() - began_s)
                self._done.append(ended)
                del ended  # while waiting for the next job, nothing of this one is held
                if not self._wakeup_scheduled:
                    self._wakeup_scheduled = True
                    self._loop.call_soon_threadsafe(self._deliver)

    def _next(self, ended: _Runnable | None, took_s: float) -> _Runnable | None:
        """The job whose turn it is, None when there is none for this thread; after one that has ended."""
        running = self._running
        with self._lock:
            if ended is not None:
                self._queued.correct(ended.tenant, ended.cost_s, took_s)
                left = running[ended.tenant] - 1
                if left:
                    running[ended.tenant] = left
                else:
                    del running[ended.tenant]
            taken = self._queued.take(self._may_run)
            if taken is None:
                return None
            running[taken.tenant] = running.get(taken.tenant, 0) + 1
            return taken.item

    def _may_run(self, tenant: str) -> bool:
        return self._running.get(tenant, 0) < self._tenant_max

    def _deliver(self) -> None:
        self._wakeup_scheduled = False
        while self._done:
            job = self._done.popleft()
            self._pending -= 1
            try:
                job.deliver()
            except Exception as failure:  # reported by the loop, as of any other callback; others wait behind it
                self._loop.call_exception_handler({"message": "a callback failed", "exception": failure})
