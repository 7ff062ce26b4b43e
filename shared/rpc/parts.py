"""An answer that comes in parts, at who asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator


class Parts:
    """Iterated over, it gives the parts as they come, once. Whoever stops earlier has to `close` it.

    An answer may be large, so nothing here waits for the garbage collector: no cycle is left when it has ended.
    """

    def __init__(self) -> None:
        self._come: deque[memoryview] = deque()
        self._changed = asyncio.Event()
        self._first: asyncio.Future[Parts] | None = None
        self._call: asyncio.Future[memoryview] | None = None
        self._error: BaseException | None = None
        self._ended = False

    def of(self, call: asyncio.Future[memoryview]) -> asyncio.Future[Parts]:
        """The answer to a call, which gives its last part, or its failure: it itself, once the first part is there."""
        first = self._first = asyncio.get_running_loop().create_future()
        self._call = call
        call.add_done_callback(self._end)
        first.add_done_callback(self._given_up)
        return first

    def add(self, part: memoryview) -> None:
        """The next one."""
        if self._call is None:
            return  # nobody wants it any more
        if len(part):
            self._come.append(part)
        self._changed.set()
        self._begin()

    def close(self) -> None:
        """Nobody wants what has not been taken."""
        call, self._call = self._call, None
        self._come.clear()
        if call is not None:
            call.cancel()

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        """Raises what the call raised."""
        while self._come or not self._ended:
            if self._come:
                yield self._come.popleft()
            else:
                self._changed.clear()
                await self._changed.wait()
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        first, self._first = self._first, None
        if first is not None and not first.done():
            first.set_result(self)

    def _given_up(self, first: asyncio.Future[Parts]) -> None:
        if first.cancelled():
            self.close()

    def _end(self, call: asyncio.Future[memoryview]) -> None:
        if call.cancelled():
            self._error = asyncio.CancelledError()
        elif (error := call.exception()) is None:
            self.add(call.result())
        else:
            self._error = error
            first, self._first = self._first, None
            if first is not None and not first.done():
                first.set_exception(error)
        self._call = None
        self._ended = True
        self._changed.set()


def let_go(call: asyncio.Future[Parts] | asyncio.Future[memoryview]) -> None:
    """Nobody wants what comes of it; it may have come already."""
    if not call.cancel() and not call.cancelled() and call.exception() is None:
        result = call.result()
        if isinstance(result, Parts):
            result.close()
