"""Pauses between rounds of garbage for erasures: a round lists the whole bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import Final

from shared.process.clock import Clock

REST_RATIO: Final = 20
"""A round that took t seconds is followed by none for 20 t."""
ROUNDS_PER_GRACE: Final = 4


class Paced:
    """Collects garbage when it is called, unless the last round was a moment ago."""

    def __init__(self, collect: Callable[[Set[str]], Awaitable[None]], grace_s: float, clock: Clock) -> None:
        self._collect = collect
        self._pause_s = grace_s / ROUNDS_PER_GRACE
        self._clock = clock
        self._rest_until_s = 0.0

    async def __call__(self, erasing: Set[str]) -> None:
        """Collects garbage with these collections as erased ones. Raises Unavailable."""
        began_s = self._clock.monotonic()
        if began_s < self._rest_until_s:
            return
        await self._collect(erasing)
        took_s = self._clock.monotonic() - began_s
        self._rest_until_s = began_s + took_s + max(self._pause_s, REST_RATIO * took_s)
