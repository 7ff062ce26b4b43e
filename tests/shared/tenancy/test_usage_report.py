"""Reports of usage, from Redis and from the bucket, on real servers and a clock of our own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.errors import Corrupt, LimitExceeded
from shared.objects.directory import open_directory
from shared.objects.keys import usage_key
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from shared.tenancy.usage import HOUR_S, Subject, UsageEntry, hour_of, shown_hour
from shared.tenancy.usage_parts import UsagePart, UsageParts
from shared.tenancy.usage_report import HOURS_MAX, LIVE_S, UsageReader, shown_start
from shared.tenancy.usage_table import UsageTable
from tests.logservice.conftest import SteppedClock
from tests.redis_server import keys, redis, redis_server

__all__ = ["keys", "redis", "redis_server"]

HOUR = hour_of(1_800_000_000)


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_directory(tmp_path / "bucket") as store:
        yield store


@pytest.fixture
def clock() -> SteppedClock:
    stepped = SteppedClock()
    stepped.time_s = HOUR * HOUR_S
    return stepped


@pytest.fixture
def table(redis: Redis, keys: Keys) -> UsageTable:
    return UsageTable(redis, keys)


@pytest.fixture
def reader(table: UsageTable, objects: ObjectStore, clock: SteppedClock) -> UsageReader:
    return UsageReader(table, UsageParts(objects), clock)


async def roll(objects: ObjectStore, hour: int, number: int, entries: list[UsageEntry], *, final: bool = True) -> None:
    part = UsagePart(
        hour=shown_hour(hour), number=number, final=final, written_s=0.0, writer=f"{number}", entries=entries
    )
    assert await UsageParts(objects).create(part)


async def test_an_hour_is_read_from_the_bucket_and_from_redis_and_counts_once(
    table: UsageTable, objects: ObjectStore, reader: UsageReader
) -> None:
    await roll(objects, HOUR, 1, [UsageEntry("f", "a", "", {"queries": 3}), UsageEntry("g", "a", "", {"queries": 10})])
    await table.flush(HOUR, "f", 1, {Subject("a"): {"queries": 4}})
    assert await reader.rows(HOUR, HOUR + 1) == [(HOUR, "a", False, {"queries": 14})]


async def test_a_range_has_its_hours_and_a_tenant_its_own(objects: ObjectStore, reader: UsageReader) -> None:
    for hour in range(HOUR - 2, HOUR + 3):
        entries = [UsageEntry("f", "a", "", {"queries": 1}), UsageEntry("f", "b", "", {"queries": 2})]
        await roll(objects, hour, 1, entries)
    found = await reader.rows(HOUR - 1, HOUR + 1)
    assert [(row.hour, row.tenant, row.final) for row in found] == [
        (HOUR - 1, "a", True), (HOUR - 1, "b", True), (HOUR, "a", True), (HOUR, "b", True),
    ]  # fmt: skip
    assert [row.hour for row in await reader.rows(HOUR, HOUR + 9, "b")] == [HOUR, HOUR + 1, HOUR + 2]
    assert await reader.rows(HOUR, HOUR + 9, "c") == []
    assert shown_start(HOUR) == "2027-01-15T08:00:00Z"


async def test_what_is_remembered_gives_way_to_what_is_new(
    table: UsageTable, objects: ObjectStore, reader: UsageReader, clock: SteppedClock
) -> None:
    await roll(objects, HOUR, 1, [UsageEntry("f", "a", "", {"queries": 1})])
    await reader.rows(HOUR, HOUR + 1)
    await roll(objects, HOUR, 2, [UsageEntry("f", "a", "", {"queries": 5})])
    assert (await reader.rows(HOUR, HOUR + 1))[0].used == {"queries": 5}
    await table.flush(HOUR, "f", 1, {Subject("a"): {"queries": 6}})
    clock.time_s += LIVE_S + 1
    assert (await reader.rows(HOUR, HOUR + 1))[0].used == {"queries": 6}


async def test_a_damaged_part_is_named_rather_than_left_out(objects: ObjectStore, reader: UsageReader) -> None:
    await roll(objects, HOUR, 1, [UsageEntry("f", "a", "", {"queries": 1})])
    key = usage_key(shown_hour(HOUR), 1)
    await objects.put(key, (await objects.get(key)).replace(b":1}", b":2}"))
    with pytest.raises(Corrupt, match=key):
        await reader.rows(HOUR, HOUR + 1)


async def test_a_report_is_bounded(reader: UsageReader) -> None:
    with pytest.raises(LimitExceeded):
        await reader.rows(HOUR, HOUR + HOURS_MAX + 1)
