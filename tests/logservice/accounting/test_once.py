"""Usage counts once, whatever happens in which order: drawn at random, repeatable from a seed."""

import random
from collections import Counter

import pytest
from redis.asyncio import Redis

from logservice.accounting.rollup import CHECKPOINT_S, GRACE_S, Rollup
from shared.errors import UnknownOutcome
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from shared.tenancy.usage import HOUR_S, Subject, UsageTotals, hour_of
from shared.tenancy.usage_flush import KEPT_HOURS, UsageFlusher
from shared.tenancy.usage_parts import UsageParts
from shared.tenancy.usage_report import HOURS_MAX, UsageReader
from shared.tenancy.usage_table import UsageTable
from tests.logservice.conftest import SteppedClock

FIRST_HOUR = hour_of(1_800_000_000)
STEPS = 120
TENANTS = ("a", "b", "c")

Counted = Counter[tuple[int, str]]
"""Requests by hour and tenant."""


class Killed(Exception):
    """The process is no more."""


class Breaking:
    """A table or the parts, of which a call may not be made, or made without an answer."""

    def __init__(self, inner: object, names: tuple[str, ...], error: type[Exception], chance: random.Random) -> None:
        self._inner = inner
        self._names = names
        self._error = error
        self._chance = chance
        self.breaks = False

    def __getattr__(self, name: str) -> object:
        attribute = getattr(self._inner, name)
        if name not in self._names:
            return attribute

        async def call(*args: object) -> object:
            if not self.breaks or self._chance.random() < 0.5:
                return await attribute(*args)
            if self._chance.random() < 0.5:
                await attribute(*args)
            raise self._error("broken")

        return call


class Cluster:
    """Processes that count, leaders that roll up, and what certainly was counted."""

    def __init__(self, table: UsageTable, parts: UsageParts, clock: SteppedClock, chance: random.Random) -> None:
        self.chance = chance
        self.clock = clock
        self.flushing = Breaking(table, ("flush",), UnknownOutcome, chance)
        self.removing = Breaking(table, ("remove",), Killed, chance)
        self.parts = Breaking(parts, ("create", "delete"), Killed, chance)
        self.expected: Counted = Counter()
        self.processes = [self._process() for _ in range(3)]
        self.leader = self._leader()

    def _process(self) -> tuple[UsageTotals, UsageFlusher, Counted]:
        totals = UsageTotals()
        return totals, UsageFlusher(self.flushing, totals, self.clock, "p"), Counter()  # type: ignore[arg-type]

    def _leader(self) -> Rollup:
        return Rollup(self.removing, self.parts, self.clock, "l", lambda _: "")  # type: ignore[arg-type]

    def count(self) -> None:
        totals, _, counted = self.chance.choice(self.processes)
        hour, tenant, requests = hour_of(self.clock.now()), self.chance.choice(TENANTS), self.chance.randint(1, 9)
        totals.add(hour, Subject(tenant), {"queries": requests})
        counted[hour, tenant] += requests

    async def flush(self, *, breaks: bool) -> None:
        _, flusher, _ = self.chance.choice(self.processes)
        self.flushing.breaks = breaks
        try:
            await flusher.flush()
        except UnknownOutcome:
            assert breaks

    async def replace(self) -> None:
        """A process ends, having passed on what it had, and another one comes."""
        number = self.chance.randrange(len(self.processes))
        _, flusher, counted = self.processes[number]
        self.flushing.breaks = False
        await flusher.flush()
        self.expected += counted
        self.processes[number] = self._process()

    async def roll_up(self, *, breaks: bool) -> None:
        self.removing.breaks = self.parts.breaks = breaks
        try:
            await self.leader.step()
        except Killed:
            self.leader = self._leader()

    async def end(self) -> None:
        """Everybody passes on all, and the last hour is rolled up."""
        for number in range(len(self.processes)):
            _, flusher, counted = self.processes[number]
            self.flushing.breaks = False
            await flusher.flush()
            self.expected += counted
        self.clock.time_s += HOUR_S + GRACE_S
        await self.roll_up(breaks=False)


@pytest.mark.parametrize("seed", range(12))
async def test_each_request_is_counted_once(
    redis: Redis, keys: Keys, objects: ObjectStore, clock: SteppedClock, seed: int
) -> None:
    chance = random.Random(seed)
    clock.time_s = FIRST_HOUR * HOUR_S
    table, parts = UsageTable(redis, keys), UsageParts(objects)
    cluster = Cluster(table, parts, clock, chance)
    for _ in range(STEPS):
        match chance.choices(range(7), weights=[40, 15, 10, 5, 15, 10, 10])[0]:
            case 0:
                cluster.count()
            case 1:
                await cluster.flush(breaks=False)
            case 2:
                await cluster.flush(breaks=True)
            case 3:
                await cluster.replace()
            case 4:
                clock.time_s += chance.choice([1.0, GRACE_S / 3, CHECKPOINT_S, HOUR_S / 2])
            case 5:
                await cluster.roll_up(breaks=False)
            case 6:
                await cluster.roll_up(breaks=True)
    await cluster.end()
    reader = UsageReader(table, parts, clock)
    rows = await reader.rows(FIRST_HOUR, min(FIRST_HOUR + HOURS_MAX, hour_of(clock.now()) + KEPT_HOURS))
    assert {(row.hour, row.tenant): row.used["queries"] for row in rows} == dict(cluster.expected)
    assert all(row.final for row in rows)
    assert await table.hours() == []
