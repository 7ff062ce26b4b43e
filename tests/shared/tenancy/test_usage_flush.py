"""Passing totals on to real servers: once, whatever is repeated, and again after a loss."""

import pytest
from redis.asyncio import Redis

from shared.errors import UnknownOutcome
from shared.redis.keys import Keys
from shared.tenancy import usage_flush
from shared.tenancy.usage import HOUR_S, Measure, Subject, UsageTotals, by_tenant, merged
from shared.tenancy.usage_flush import UsageFlusher
from shared.tenancy.usage_table import UsageTable
from tests.logservice.conftest import SteppedClock
from tests.redis_server import keys, own_server, redis, redis_server

__all__ = ["keys", "own_server", "redis", "redis_server"]

READ = Measure.REQUESTS_READ.value
HOUR = 100


@pytest.fixture
def clock() -> SteppedClock:
    stepped = SteppedClock()
    stepped.time_s = HOUR * HOUR_S
    return stepped


@pytest.fixture
def table(redis: Redis, keys: Keys) -> UsageTable:
    return UsageTable(redis, keys)


async def read(table: UsageTable, hour: int = HOUR) -> dict[str, dict[str, int]]:
    return by_tenant(merged((await table.read(hour)).entries))


async def test_totals_of_several_processes_add_up(table: UsageTable, clock: SteppedClock) -> None:
    for _ in range(2):
        totals = UsageTotals()
        flusher = UsageFlusher(table, totals, clock, "same name")
        for _ in range(3):
            totals.add(HOUR, Subject("a b/c"), {READ: 1})
            await flusher.flush()
            await flusher.flush()
    assert await read(table) == {"a b/c": {READ: 6}}
    assert await table.hours() == [HOUR]


async def test_a_batch_is_taken_once(table: UsageTable) -> None:
    assert await table.flush(HOUR, "source", 1, {Subject("a"): {READ: 1}}) == 0
    assert await table.flush(HOUR, "source", 2, {Subject("a"): {READ: 5}}) == 1
    assert await table.flush(HOUR, "source", 1, {Subject("a"): {READ: 1}}) == 2  # one that was late
    assert await table.flush(HOUR, "source", 2, {Subject("a"): {READ: 99}}) == 2
    assert await read(table) == {"a": {READ: 5}}


async def test_a_flush_whose_answer_is_lost_counts_once(
    table: UsageTable, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = UsageTotals()
    flusher = UsageFlusher(table, totals, clock, "p")
    totals.add(HOUR, Subject("a"), {READ: 1})
    flush = table.flush

    async def answer_lost(*args: object) -> int:
        await flush(*args)  # type: ignore[arg-type] # as they came
        raise UnknownOutcome("lost")

    monkeypatch.setattr(table, "flush", answer_lost)
    with pytest.raises(UnknownOutcome):
        await flusher.flush()
    monkeypatch.setattr(table, "flush", flush)
    totals.add(HOUR, Subject("a"), {READ: 1})
    await flusher.flush()
    assert await read(table) == {"a": {READ: 2}}


async def test_each_hour_has_its_own_totals_and_many_tenants_go_in_batches(
    table: UsageTable, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_flush, "BATCH_SUBJECTS", 2)
    totals = UsageTotals()
    flusher = UsageFlusher(table, totals, clock, "p")
    for number in range(5):
        totals.add(HOUR, Subject(f"t{number}"), {READ: number + 1})
        totals.add(HOUR + 1, Subject(f"t{number}"), {READ: 10})
    await flusher.flush()
    assert await read(table) == {f"t{number}": {READ: number + 1} for number in range(5)}
    assert await read(table, HOUR + 1) == {f"t{number}": {READ: 10} for number in range(5)}
    assert await table.hours() == [HOUR, HOUR + 1]


async def test_a_server_that_lost_its_data_gets_everything_again(
    table: UsageTable, redis: Redis, keys: Keys, clock: SteppedClock
) -> None:
    totals = UsageTotals()
    flusher = UsageFlusher(table, totals, clock, "p")
    for tenant in ("a", "b"):
        totals.add(HOUR, Subject(tenant), {READ: 2})
    await flusher.flush()
    await redis.delete(keys.usage(str(HOUR)), keys.usage_hours)
    totals.add(HOUR, Subject("a"), {READ: 1})
    await flusher.flush()
    assert await read(table) == {"a": {READ: 3}, "b": {READ: 2}}


async def test_an_hour_is_removed_only_as_it_was_read(table: UsageTable) -> None:
    await table.flush(HOUR, "source", 1, {Subject("a"): {READ: 1}})
    before = await table.read(HOUR)
    await table.flush(HOUR, "source", 2, {Subject("a"): {READ: 2}})
    assert not await table.remove(HOUR, before.changes)
    assert await read(table) == {"a": {READ: 2}}
    assert await table.remove(HOUR, (await table.read(HOUR)).changes)
    assert await table.hours() == []
    assert (await table.read(HOUR)).entries == []


async def test_what_cannot_be_read_of_the_usage_in_redis_is_passed_over_and_said_again(
    table: UsageTable, redis: Redis, keys: Keys
) -> None:
    key = keys.usage(str(HOUR))
    assert await table.flush(HOUR, "source", 1, {Subject("a"): {READ: 1}, Subject("b"): {READ: 7}}) == 0
    await redis.sadd(keys.usage_hours, b"\xff")
    await redis.hset(key, "use source a ", b"\xff")
    await redis.hset(key, "seq source", b"\xff")
    await redis.hset(key, "changes", b"\xff")
    assert await table.hours() == [HOUR]
    found = await table.read(HOUR)
    assert by_tenant(merged(found.entries)) == {"b": {READ: 7}}
    assert await table.flush(HOUR, "source", 2, {Subject("a"): {READ: 2}}) == 0, "the source says all again"
    assert await read(table) == {"a": {READ: 2}, "b": {READ: 7}}
    assert not await table.remove(HOUR, found.changes), "it has changed since"
    await redis.hset(key, "changes", b"\xff")
    assert await table.flush(HOUR, "source", 3, {}) == 2
    assert await table.remove(HOUR, (await table.read(HOUR)).changes)


async def test_an_hour_without_a_date_is_passed_over(table: UsageTable, redis: Redis, keys: Keys) -> None:
    await redis.sadd(keys.usage_hours, "9" * 20, str(HOUR))
    assert await table.hours() == [HOUR]
