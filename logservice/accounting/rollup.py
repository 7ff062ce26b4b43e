"""Rolls the usage of hours up from Redis into the bucket.

```text
the hour              what is done
goes on               every 10 minutes a checkpoint: what Redis loses then is at most what came since
is over for 10 min    the final part: what checkpoints and Redis have; then the hash in Redis is removed, unless it has
                      changed meanwhile, and the checkpoints are deleted
gets totals later     another final part, which contains the one before
```

Every step may be repeated, and be ended by a kill anywhere: entries are totals, which are merged and never added
(`shared.tenancy.usage`), parts are created once, and nothing is removed from Redis that is not in a part. A part that
would say nothing new is not written. Two leaders at once take different numbers, and one of them writes what the other
has written already.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from prometheus_client import Counter

from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.usage import HOUR_S, UsageEntry, hour_of, merged, parse_hour, shown_hour
from shared.tenancy.usage_parts import UsagePart, UsageParts
from shared.tenancy.usage_table import UsageTable

log = get_logger(__name__)

GRACE_S: Final = 600.0
"""Time after the end of an hour in which totals of it still come, in seconds: processes flush every 10 s."""
CHECKPOINT_S: Final = 600.0
"""Time between two checkpoints of an hour, in seconds."""
LOOK_BACK_HOURS: Final = 48
"""Hours in which final parts are looked for that are missing, because Redis lost the hour before."""
LOOK_BACK_S: Final = 3600.0

PARTS: Final = Counter("polychrome_logservice_usage_parts_total", "Parts of usage that were written to the bucket.")


class Rollup:
    """The rollup of one leader. `tenant_of` gives the tenant of a collection, empty when it is not known. Everything
    raises Unavailable.
    """

    def __init__(
        self, table: UsageTable, parts: UsageParts, clock: Clock, name: str, tenant_of: Callable[[str], str]
    ) -> None:
        self._table = table
        self._parts = parts
        self._clock = clock
        self._name = name
        self._tenant_of = tenant_of
        self._checked_s: dict[int, float] = {}
        """When the last checkpoint of an hour was written, or this leader began to look after it (monotonic)."""
        self._looked_back_s: float | None = None

    async def step(self) -> None:
        """Rolls up the hours that are due."""
        now_s, mono_s = self._clock.now(), self._clock.monotonic()
        hours = set(await self._table.hours())
        for hour in sorted(hours):
            if _is_over(hour, now_s):
                await self._roll(hour, final=True)
                self._checked_s.pop(hour, None)
            elif mono_s - self._checked_s.setdefault(hour, mono_s) >= CHECKPOINT_S:
                self._checked_s[hour] = mono_s
                await self._roll(hour, final=False)
        if self._looked_back_s is None or mono_s - self._looked_back_s >= LOOK_BACK_S:
            await self._look_back(now_s, hours)
            self._looked_back_s = mono_s

    async def _look_back(self, now_s: float, in_redis: set[int]) -> None:
        """Ends hours of which the bucket has checkpoints alone."""
        days = {shown_hour(hour_of(now_s) - back)[: len("2026-12-01")] for back in range(LOOK_BACK_HOURS + 1)}
        for day in sorted(days):
            for shown in await self._parts.hours(day):
                hour = parse_hour(shown)
                if hour not in in_redis and _is_over(hour, now_s):
                    await self._roll(hour, final=True)

    async def _roll(self, hour: int, *, final: bool) -> None:
        shown = shown_hour(hour)
        live = await self._table.read(hour)
        rolled = await self._parts.read(shown, (await self._parts.hours(shown)).get(shown, []))
        for key, what in rolled.damaged.items():
            log.error("usage_part_damaged", object=key, what=what)
        entries = merged([*rolled.entries, *self._resolved(live.entries)])
        news = entries != rolled.entries or (final and not rolled.final)
        if news and entries:
            number = max(rolled.numbers, default=0) + 1
            part = UsagePart(
                hour=shown, number=number, final=final, written_s=self._clock.now(),
                writer=f"{self._name} {secrets.token_hex(4)}", entries=entries,
            )  # fmt: skip
            if not await self._parts.create(part):
                log.warning("usage_part_taken", hour=shown, number=number)
                return  # another leader's: the next step reads it
            PARTS.inc()
            log.info("usage_rolled_up", hour=shown, number=number, final=final, entries=len(entries))
        if final:
            await self._table.remove(hour, live.changes)
            await self._parts.delete(shown, rolled.checkpoints)

    def _resolved(self, entries: Iterable[UsageEntry]) -> list[UsageEntry]:
        """The entries, with the tenants of collections where their counters did not know them."""
        return [
            msgspec.structs.replace(entry, tenant=self._tenant_of(entry.collection))
            if entry.collection and not entry.tenant
            else entry
            for entry in entries
        ]


def _is_over(hour: int, now_s: float) -> bool:
    return (hour + 1) * HOUR_S + GRACE_S <= now_s
