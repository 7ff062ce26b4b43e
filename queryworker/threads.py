"""Threads that work for an event loop.

An executor makes two futures of every call, with a lock and a condition each, and wakes the loop for every result. Half
of the reads take less than that costs, so here a call is a function to be called back, and results that are ready
together wake the loop once.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


Finish = Callable[[Any, BaseException | None], None]
"""Takes the result or the error."""


class _Job(NamedTuple):
    finish: Finish
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


class _Done(NamedTuple):
    finish: Finish
    result: Any
    error: BaseException | None


class Threads:
    """`count` threads, for the loop that runs when they are made. `close` waits for what has begun.

    `nice` threads give way to all others of the machine, where threads have priorities of their own (Linux).
    """

    def __init__(self, count: int, name: str, nice: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[_Done] = deque()
        self._nice = nice if sys.platform == "linux" else 0
        self._told = False
        """Whether the loop has been told that results are there. Set by the threads, cleared by the loop before it
        takes them: a thread that saw it set has put its result where the loop is still to look.
        """
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `work(*arguments)`, or what it raised. When cancelled before a thread took it up, it never
        begins.
        """
        answer: asyncio.Future[Result] = self._loop.create_future()

        def unless_cancelled() -> Result | None:
            return None if answer.cancelled() else work(*arguments)

        def finish(result: Any, error: BaseException | None) -> None:
            if answer.done():
                return  # cancelled
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self.begin(finish, unless_cancelled)
        return await answer

    def begin(self, finish: Finish, work: Callable[..., Any], *arguments: Any) -> None:
        """Do `work(*arguments)` in a thread, then call `finish` on the loop with its result or what it raised."""
        self._jobs.put(_Job(finish, work, arguments))

    async def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while (job := self._jobs.get()) is not None:
            self._done.append(_perform(job))
            del job  # while waiting for the next one, nothing of this one is held
            if not self._told:
                self._told = True
                self._loop.call_soon_threadsafe(self._hand_back)

    def _hand_back(self) -> None:
        self._told = False
        while self._done:
            finish, result, error = self._done.popleft()
            finish(result, error)


def _perform(job: _Job) -> _Done:
    try:
        return _Done(job.finish, job.work(*job.arguments), None)
    except BaseException as error:
        return _Done(job.finish, None, error)
