"""Counts the time of jobs (`shared.tenancy.usage`) for the collections that they are done for. The log service, which
rolls usage up, knows the tenants of these.
"""

from __future__ import annotations

from shared.errors import Backoff, Unavailable
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.usage import Measure, Subject, UsageTotals, hour_of
from shared.tenancy.usage_flush import UsageFlusher
from shared.tenancy.usage_table import UsageTable

log = get_logger(__name__)


class JobMetering:
    """The meter of one compactor. `name` is the process's."""

    def __init__(self, table: UsageTable, clock: Clock, name: str) -> None:
        self._totals = UsageTotals()
        self._clock = clock
        self._flusher = UsageFlusher(table, self._totals, clock, name)
        self.run = self._flusher.run

    def count(self, collection_id: str, seconds: float) -> None:
        """Counts the time that a job for the collection took, however it ended."""
        used = {Measure.COMPACTION_MS.value: round(1000 * seconds)}
        self._totals.add(hour_of(self._clock.now()), Subject("", collection_id), used)

    async def close(self) -> None:
        """Passes on what is left, before the process ends. What cannot be passed on is lost, and the log says so."""
        try:
            await self._flusher.flush()
        except (Unavailable, Backoff) as error:
            log.warning("usage_lost", message=error.message)
