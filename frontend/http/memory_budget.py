"""Room for large request bodies, so that many at once wait for each other instead of filling the memory.

What is counted are bytes that have really arrived: a client that announces a large body and sends none takes no room.
Who came first is never made to wait, so somebody always gets on, however full it is.
"""

from __future__ import annotations

import asyncio


class Room:
    """Holds up to `bytes_max`, more only for the one that came first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: dict[object, int] = {}
        self._total = 0
        self._left = asyncio.Event()

    @property
    def bytes(self) -> int:
        return self._total

    async def take(self, who: object, size: int) -> None:
        """Wait until `who` may hold `size` bytes more."""
        self._held.setdefault(who, 0)
        while self._total + size > self._bytes_max and who != next(iter(self._held)):
            await self._left.wait()
        self._held[who] += size
        self._total += size

    def leave(self, who: object) -> None:
        """Give back all that `who` holds or waits for; nothing is fine."""
        held = self._held.pop(who, None)
        if held is not None:
            self._total -= held
            self._left.set()
            self._left = asyncio.Event()
