"""A timer for the deadlines of many calls: all of them are looked through now and then, while there are any.

A timer for each call costs more than all else that this process does for the call, and nearly none of them ever fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.025
"""Longest delay with which a deadline is noticed, in seconds."""


class DeadlineTimer:
    """Calls `expire` with the loop's time every TICK_S from `wake` on, until that returns False: nothing is left."""

    def __init__(self, expire: Callable[[float], bool]) -> None:
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """There is a deadline again."""
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick, loop)

    def stop(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._expire(loop.time()):
            self.wake(loop)
