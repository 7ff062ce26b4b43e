"""One timer for many deadlines: what is waited for is looked through now and then, while there is anything.

A timer per call costs more than the call's own way through this process, and nearly none of them ever goes off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.025
"""How late a deadline may be noticed."""


class Ticker:
    """Calls `look` every TICK_S from `wake` on, until it says that nothing is left to wait for."""

    def __init__(self, look: Callable[[float], bool]) -> None:
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._look(loop.time()):
            self.wake(loop)
