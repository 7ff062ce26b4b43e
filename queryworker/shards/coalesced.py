"""Runs of an operation that callers share: each gets the outcome of one that began after it had asked.

Who asks while none is under way begins one, together with all who ask in the same turn of the loop. Who asks while one
is under way shares the next with all others who do.

```text
asked   1    2 3                 4
runs    [---1---][----2, 3----]  [---4---]
```

A run has no task of its own, which would cost as much as a short run does: it is part of the task of one of those who
share it. When that one is cancelled, the others begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Result = TypeVar("Result")


class _Turn:
    """Said to one of those who wait: there is no outcome yet, the run is yours."""


_YOUR_TURN: Final = _Turn()


class Coalesced(Generic[Result]):
    """See the module. One event loop's."""

    def __init__(self, operation: Callable[[], Awaitable[Result]]) -> None:
        self._operation = operation
        self._busy = False
        """Whether a run is under way, or somebody was told to begin one."""
        self._waiting: list[asyncio.Future[Result | _Turn]] = []
        """For the next run."""

    async def run(self) -> Result:
        """The outcome of a run that begins after this call."""
        if self._busy:
            waiter: asyncio.Future[Result | _Turn] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                told = await waiter
            except asyncio.CancelledError:
                if _told_to_begin(waiter):
                    self._next()
                raise
            if not isinstance(told, _Turn):
                return told
            return await self._lead()
        self._busy = True
        try:
            await asyncio.sleep(0)  # who asks in the same turn of the loop shares it
        except asyncio.CancelledError:
            self._next()
            raise
        return await self._lead()

    def stop(self) -> None:
        """Those who wait are cancelled."""
        for waiter in self._waiting:
            waiter.cancel()

    async def _lead(self) -> Result:
        sharing, self._waiting = self._waiting, []  # from here on newcomers need the run after this one
        try:
            result = await self._operation()
        except Exception as error:
            for waiter in _left(sharing):
                waiter.set_exception(error)
                waiter.exception()  # it counts as heard: who is cancelled meanwhile never hears it
            raise
        except BaseException:  # cancelled: the others did not ask for that
            self._waiting = sharing + self._waiting
            raise
        else:
            for waiter in _left(sharing):
                waiter.set_result(result)
            return result
        finally:
            self._next()

    def _next(self) -> None:
        """One of those who wait, if any, begins the next run."""
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(_YOUR_TURN)
                return
        self._busy = False


def _told_to_begin(waiter: asyncio.Future[Result | _Turn]) -> bool:
    heard = waiter.done() and not waiter.cancelled() and waiter.exception() is None
    return heard and isinstance(waiter.result(), _Turn)


def _left(waiters: list[asyncio.Future[Result | _Turn]]) -> list[asyncio.Future[Result | _Turn]]:
    """Those who were not cancelled."""
    return [waiter for waiter in waiters if not waiter.done()]
