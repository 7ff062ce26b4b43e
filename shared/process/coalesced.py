"""Coalesced runs of an operation: callers share runs, and each gets the outcome of a run that began after its call.

A call while no run is in progress begins one, together with all calls in the same iteration of the event loop. Calls
while a run is in progress share the next one.

```text
calls   1    2 3                 4
runs    [---1---][----2, 3----]  [---4---]
```

(Unlike in `singleflight` of Go's x/sync, a call never joins a run that is in progress: that may have looked before the
call was made.)

A run has no task of its own, which would cost as much as a short run does: it is part of the task of one of the callers
that share it, the leader. When the leader is cancelled, the others begin a run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Result = TypeVar("Result")


class _Lead:
    """Given to a waiting caller instead of an outcome: it has to begin the next run."""


_LEAD: Final = _Lead()


class Coalesced(Generic[Result]):
    """An operation whose runs are shared by callers on one event loop."""

    def __init__(self, operation: Callable[[], Awaitable[Result]]) -> None:
        self._operation = operation
        self._busy = False
        """Whether a run is in progress, or a caller was told to begin one."""
        self._waiting: list[asyncio.Future[Result | _Lead]] = []
        """The callers that share the next run."""
        self.runs_begun = 0
        """While this number stays the same, a call shares its run with the calls that were made before it."""

    async def run(self) -> Result:
        """The outcome of a run that begins after this call; raises what the run raises."""
        if self._busy:
            waiter: asyncio.Future[Result | _Lead] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                outcome = await waiter
            except asyncio.CancelledError:
                if _was_told_to_lead(waiter):
                    self._begin_next()
                raise
            if not isinstance(outcome, _Lead):
                return outcome
            return await self._lead()
        self._busy = True
        try:
            await asyncio.sleep(0)  # calls in the same iteration of the loop share the run
        except asyncio.CancelledError:
            self._begin_next()
            raise
        return await self._lead()

    def cancel_waiting(self) -> None:
        """Cancel the calls that wait for the next run. A run in progress goes on."""
        for waiter in self._waiting:
            waiter.cancel()

    async def _lead(self) -> Result:
        sharing, self._waiting = self._waiting, []  # from here on calls need the run after this one
        self.runs_begun += 1
        try:
            result = await self._operation()
        except Exception as error:
            for waiter in _not_cancelled(sharing):
                waiter.set_exception(error)
                waiter.exception()  # marks it as retrieved: a caller that is cancelled meanwhile never does
            raise
        except BaseException:  # the leader was cancelled: the others were not
            self._waiting = sharing + self._waiting
            raise
        else:
            for waiter in _not_cancelled(sharing):
                waiter.set_result(result)
            return result
        finally:
            self._begin_next()

    def _begin_next(self) -> None:
        """Tell a waiting caller, if any, to begin the next run."""
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(_LEAD)
                return
        self._busy = False


def _was_told_to_lead(waiter: asyncio.Future[Result | _Lead]) -> bool:
    succeeded = waiter.done() and not waiter.cancelled() and waiter.exception() is None
    return succeeded and isinstance(waiter.result(), _Lead)


def _not_cancelled(waiters: list[asyncio.Future[Result | _Lead]]) -> list[asyncio.Future[Result | _Lead]]:
    return [waiter for waiter in waiters if not waiter.done()]
