"""Deadlines that share one timer.

`asyncio.timeout` makes a timer for every command, which costs several times what sending the command does, and nearly
none of them ever fires. Here all deadlines of an event loop are looked through now and then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

TICK_S: Final = 0.025
"""Longest delay with which a deadline is noticed, in seconds."""


class Deadline:
    """A context whose block is cancelled when it takes longer than `limit_s` seconds, up to a tick late. It then raises
    TimeoutError, as that of `asyncio.timeout` does. A block that is cancelled from elsewhere stays cancelled.
    """

    __slots__ = ("_cancelling", "_expired", "_limit_s", "_of_loop", "_task", "ends_s")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.ends_s = loop.time() + self._limit_s
        self._of_loop = _deadlines_of(loop)
        self._of_loop.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._of_loop.running.discard(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancels the block: its time is over."""
        self._expired = True
        self._task.cancel()


class _LoopDeadlines:
    """The running deadlines of one event loop, looked through while there are any. It refers neither to the loop nor to
    a timer, which refers to its loop: a loop that has ended would be kept for ever.
    """

    def __init__(self) -> None:
        self.running: set[Deadline] = set()
        self._ticking = False

    def add(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        self.running.add(deadline)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for deadline in [deadline for deadline in self.running if deadline.ends_s <= now_s]:
            self.running.discard(deadline)
            deadline.expire()
        self._ticking = bool(self.running)
        if self._ticking:
            loop.call_later(TICK_S, self._tick, loop)


_BY_LOOP: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopDeadlines]] = WeakKeyDictionary()


def _deadlines_of(loop: asyncio.AbstractEventLoop) -> _LoopDeadlines:
    deadlines = _BY_LOOP.get(loop)
    if deadlines is None:
        deadlines = _BY_LOOP[loop] = _LoopDeadlines()
    return deadlines
