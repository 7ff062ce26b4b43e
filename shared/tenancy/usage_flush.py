"""Passes the totals of this process on to Redis, every ten seconds and before it ends.

Batches have sequences, and the server takes each once, in order. A batch whose outcome is not known is not repeated as
it was: the next one has the same totals or greater ones. When the server knows an earlier batch than the last one that
it had taken, it has lost some (it was restored, or the hour was rolled up meanwhile), and gets all totals of the hour
once more.

What a process has counted since its last flush is lost when it is killed: ten seconds of requests, queries, scans,
tokens and compactions, never of what was written (`shared.tenancy.usage`).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from shared.errors import Backoff, Unavailable
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.usage import UsageTotals, hour_of
from shared.tenancy.usage_table import UsageTable

FLUSH_S: Final = 10.0
BATCH_SUBJECTS: Final = 500
"""Subjects in a batch: the script takes about a millisecond for so many."""
KEPT_HOURS: Final = 3
"""Hours whose totals are kept although they were passed on: Redis may lose them."""

log = get_logger(__name__)


class UsageFlusher:
    """Passes on the totals of one run of a process. `name` is the process's."""

    def __init__(self, table: UsageTable, totals: UsageTotals, clock: Clock, name: str) -> None:
        self._table = table
        self._totals = totals
        self._clock = clock
        self.source = f"{name}/{secrets.token_hex(8)}"
        self._sequence = 0
        self._taken: dict[int, int] = {}
        """The sequence that was certainly taken last, by hour."""
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """A loop, for ever. While Redis is away, it keeps what there is to pass on."""
        while True:
            await self._clock.sleep(FLUSH_S)
            try:
                await self.flush()
            except (Unavailable, Backoff) as error:
                log.warning("usage_not_flushed", message=error.message)

    async def flush(self) -> None:
        """Passes on all that has changed. Raises Unavailable and StorageFull; nothing is lost then."""
        async with self._turn:
            for hour in self._totals.hours_changed:
                await self._flush_hour(hour)
            oldest = hour_of(self._clock.now()) - KEPT_HOURS
            given_up = self._totals.forget_before(oldest)
            if given_up:
                log.error("usage_given_up", hours=given_up)
            self._taken = {hour: taken for hour, taken in self._taken.items() if hour >= oldest}

    async def _flush_hour(self, hour: int) -> None:
        while totals := self._totals.take(hour, BATCH_SUBJECTS):
            self._sequence += 1
            try:
                before = await self._table.flush(hour, self.source, self._sequence, totals)
            except BaseException:
                self._totals.put_back(hour, totals)
                raise
            if before < self._taken.get(hour, 0):
                log.warning("usage_flushed_again", hour=hour)
                self._totals.put_back_all(hour)
            self._taken[hour] = self._sequence
