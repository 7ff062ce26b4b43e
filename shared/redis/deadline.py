"""Deadlines that share a timer.

`asyncio.timeout` makes a timer for every command, which costs several times what handing it over does, and nearly none
of them ever goes off. Here all deadlines of a loop are looked through now and then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

TICK_S: Final = 0.025
"""How late a deadline may be noticed."""


class Deadline:
    """The block is cancelled when it takes longer, up to a tick late, and then raises TimeoutError; as
    `asyncio.timeout` does. Cancelled by anybody else it stays cancelled.
    """

    __slots__ = ("_cancelling", "_expired", "_limit_s", "_task", "_watch", "ends_s")

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
        self._watch = _watch_of(loop)
        self._watch.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._watch.running.discard(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()


class _Watch:
    """The deadlines of one loop, looked through while there are any. It keeps neither the loop nor a timer, which knows
    its loop: a loop that is over would be kept for ever.
    """

    def __init__(self) -> None:
        self.running: set[Deadline] = set()
        self._ticking = False

    def add(self, one: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        self.running.add(one)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for one in [one for one in self.running if one.ends_s <= now_s]:
            self.running.discard(one)
            one.expire()
        self._ticking = bool(self.running)
        if self._ticking:
            loop.call_later(TICK_S, self._tick, loop)


_WATCHES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch]] = WeakKeyDictionary()


def _watch_of(loop: asyncio.AbstractEventLoop) -> _Watch:
    watch = _WATCHES.get(loop)
    if watch is None:
        watch = _WATCHES[loop] = _Watch()
    return watch
