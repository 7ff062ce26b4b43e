"""Reports of usage: what tenants used in each hour of a range, of the parts in the bucket and of what Redis has.

The same entries may be in both, and count once (`shared.tenancy.usage`). Hours that are rolled up are remembered; what
Redis has of the others is read every few seconds at most.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shared.errors import Corrupt, LimitExceeded
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.tenancy.usage import HOUR_S, UsageEntry, by_tenant, merged, shown_hour
from shared.tenancy.usage_parts import RolledHour, UsageParts
from shared.tenancy.usage_table import UsageTable

HOURS_MAX: Final = 31 * 24
"""Hours of one report."""
ROWS_MAX: Final = 200_000
"""Rows of one report, each a tenant's in an hour."""
AT_ONCE: Final = 8
"""Hours that are read at a time."""
REMEMBERED_HOURS: Final = 2 * HOURS_MAX
REMEMBERED_ROWS: Final = 2 * ROWS_MAX
LIVE_S: Final = 5.0
"""Age of what is remembered of Redis, in seconds."""


class UsageRow(NamedTuple):
    """The amounts that a tenant used in an hour. `final`: the hour is over and rolled up; what comes later changes it
    only by what a process could not pass on in time.
    """

    hour: int
    tenant: str
    final: bool
    used: Mapping[str, int]


class _Hour(NamedTuple):
    """An hour's usage by tenant, made of the parts with these numbers."""

    numbers: Sequence[int]
    final: bool
    tenants: Mapping[str, Mapping[str, int]]


class UsageReader:
    """Reads usage for reports. Everything raises Unavailable while Redis or the bucket is away."""

    def __init__(self, table: UsageTable, parts: UsageParts, clock: Clock) -> None:
        self._table = table
        self._parts = parts
        self._clock = clock
        self._rolled: OrderedDict[int, _Hour] = OrderedDict()
        self._live: dict[int, list[UsageEntry]] = {}
        self._live_s: float | None = None
        self._turn = asyncio.Lock()
        """Held by the report that is being made: so memory is bounded, and the next one finds what was read."""

    async def rows(self, begin: int, end: int, tenant: str | None = None) -> list[UsageRow]:
        """The usage of all tenants, or of one, in the hours [begin, end), by hour and tenant; hours and tenants without
        any are left out. Raises LimitExceeded for too many hours or rows, and Corrupt when a part is damaged, rather
        than show too little.
        """
        if end - begin > HOURS_MAX:
            raise LimitExceeded("hours", end - begin, HOURS_MAX, "a report of usage")
        async with self._turn:
            live = await self._read_live()
            numbers = await self._numbers(begin, end)
            hours = [hour for hour in range(begin, end) if hour in live or hour in numbers]

            async def read(hour: int) -> _Hour:
                return await self._hour(hour, numbers.get(hour, []), live.get(hour))

            found: list[UsageRow] = []
            for start in range(0, len(hours), AT_ONCE):
                batch = hours[start : start + AT_ONCE]
                for hour, usage in zip(batch, await map_concurrently(read, batch, at_once=AT_ONCE), strict=True):
                    found += _rows(hour, usage, tenant)
                if len(found) > ROWS_MAX:
                    raise LimitExceeded("rows", len(found), ROWS_MAX, "a report of usage")
            return found

    async def _read_live(self) -> dict[int, list[UsageEntry]]:
        now_s = self._clock.monotonic()
        if self._live_s is None or now_s - self._live_s > LIVE_S:
            self._live = {hour: (await self._table.read(hour)).entries for hour in await self._table.hours()}
            self._live_s = now_s
        return self._live

    async def _numbers(self, begin: int, end: int) -> dict[int, list[int]]:
        """The numbers of the parts that the bucket has of each hour in the range."""
        days = {shown_hour(hour)[: len("2026-12-01")]: None for hour in range(begin, end)}
        names = {shown_hour(hour): hour for hour in range(begin, end)}
        found: dict[int, list[int]] = {}
        for by_hour in await map_concurrently(self._parts.hours, days, at_once=AT_ONCE):
            found |= {names[name]: numbers for name, numbers in by_hour.items() if name in names}
        return found

    async def _hour(self, hour: int, numbers: Sequence[int], live: Sequence[UsageEntry] | None) -> _Hour:
        known = self._rolled.get(hour)
        if known is not None and known.numbers == numbers and not live:
            self._rolled.move_to_end(hour)
            return known
        rolled = await self._parts.read(shown_hour(hour), numbers)
        if rolled.damaged:
            key = min(rolled.damaged)
            raise Corrupt(rolled.damaged[key], key)
        if live is None:
            return self._remember(hour, numbers, rolled)
        return _Hour(numbers, False, by_tenant(merged([*rolled.entries, *live])))

    def _remember(self, hour: int, numbers: Sequence[int], rolled: RolledHour) -> _Hour:
        made = _Hour(numbers, rolled.final, by_tenant(rolled.entries))
        if rolled.final:
            self._rolled[hour] = made
            rows = sum(len(each.tenants) for each in self._rolled.values())
            while len(self._rolled) > REMEMBERED_HOURS or (rows > REMEMBERED_ROWS and len(self._rolled) > 1):
                rows -= len(self._rolled.popitem(last=False)[1].tenants)
        return made


def _rows(hour: int, usage: _Hour, tenant: str | None) -> list[UsageRow]:
    names = sorted(usage.tenants) if tenant is None else [tenant] * (tenant in usage.tenants)
    return [UsageRow(hour, name, usage.final, usage.tenants[name]) for name in names]


def shown_start(hour: int) -> str:
    """The beginning of an hour as reports show it: `2026-12-01T02:00:00Z`."""
    return f"{shown_hour(hour)}:00:00Z"


def end_of_hours(now_s: float) -> int:
    """The hour after the present one: reports that say no end go so far."""
    return int(now_s // HOUR_S) + 1
