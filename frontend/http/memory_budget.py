"""A memory budget for large request bodies: many at once wait for each other instead of filling the memory.

Only bytes that have arrived are counted: a client that announces a large body and sends nothing holds nothing. The
holder that came first never waits, so some request always gets on, however full the budget is.
"""

from __future__ import annotations

import asyncio


class MemoryBudget:
    """Up to `bytes_max` bytes held by all holders together; more only for the holder that came first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: dict[object, int] = {}
        self._total = 0
        self._released = asyncio.Event()

    @property
    def bytes(self) -> int:
        """Bytes held by all holders together."""
        return self._total

    def held(self, holder: object) -> int:
        """Bytes that `holder` holds."""
        return self._held.get(holder, 0)

    async def acquire(self, holder: object, size: int) -> None:
        """Waits until `holder` may hold `size` bytes more, and counts them."""
        self._held.setdefault(holder, 0)
        while self._total + size > self._bytes_max and holder != next(iter(self._held)):
            await self._released.wait()
        self._held[holder] += size
        self._total += size

    def release(self, holder: object) -> None:
        """Gives back all that `holder` holds, and forgets what it waits for. A holder of nothing is allowed."""
        held = self._held.pop(holder, None)
        if held is not None:
            self._total -= held
            self._released.set()
            self._released = asyncio.Event()
