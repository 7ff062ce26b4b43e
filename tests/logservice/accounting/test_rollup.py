"""Rolling usage up into the bucket, on real servers and a clock of our own."""

import pytest
from redis.asyncio import Redis

from logservice.accounting.rollup import CHECKPOINT_S, GRACE_S, LOOK_BACK_S, Rollup
from shared.objects.keys import usage_key
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from shared.tenancy.usage import HOUR_S, Measure, Subject, UsageTotals, by_tenant, hour_of, shown_hour
from shared.tenancy.usage_flush import UsageFlusher
from shared.tenancy.usage_parts import UsageParts
from shared.tenancy.usage_table import UsageTable
from tests.logservice.conftest import SteppedClock

READ = Measure.REQUESTS_READ.value
COMPACTED = Measure.COMPACTION_MS.value
HOUR = hour_of(1_800_000_000)


@pytest.fixture
def table(redis: Redis, keys: Keys) -> UsageTable:
    return UsageTable(redis, keys)


@pytest.fixture
def parts(objects: ObjectStore) -> UsageParts:
    return UsageParts(objects)


class Process:
    """A process that counts requests."""

    def __init__(self, table: UsageTable, clock: SteppedClock) -> None:
        self.totals = UsageTotals()
        self._clock = clock
        self.flusher = UsageFlusher(table, self.totals, clock, "p")

    async def count(self, tenant: str, requests: int) -> None:
        self.totals.add(hour_of(self._clock.now()), Subject(tenant), {READ: requests})
        await self.flusher.flush()


@pytest.fixture
def process(table: UsageTable, clock: SteppedClock) -> Process:
    clock.time_s = HOUR * HOUR_S + 1
    return Process(table, clock)


def leader(table: UsageTable, parts: UsageParts, clock: SteppedClock) -> Rollup:
    return Rollup(table, parts, clock, "leader", lambda _: "")


async def used(parts: UsageParts, hour: int = HOUR) -> dict[str, dict[str, int]]:
    shown = shown_hour(hour)
    return by_tenant((await parts.read(shown, (await parts.hours(shown)).get(shown, []))).entries)


async def numbers(parts: UsageParts, hour: int = HOUR) -> list[int]:
    return (await parts.hours(shown_hour(hour))).get(shown_hour(hour), [])


def end_hour(clock: SteppedClock) -> None:
    clock.time_s = (HOUR + 1) * HOUR_S + GRACE_S


async def test_an_hour_is_rolled_up_once_when_it_is_over(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process
) -> None:
    await process.count("a", 3)
    rollup = leader(table, parts, clock)
    end_hour(clock)
    clock.time_s -= 1
    await process.count("a", 5)  # in the next hour
    await rollup.step()
    assert await numbers(parts) == []
    clock.time_s += 1
    await rollup.step()
    assert await used(parts) == {"a": {READ: 3}}
    assert await table.hours() == [HOUR + 1]
    for _ in range(3):
        clock.time_s += LOOK_BACK_S / 10
        await rollup.step()
    assert await numbers(parts) == [1]


async def test_what_comes_late_makes_another_part_and_counts_once(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process
) -> None:
    await process.count("a", 3)
    await process.count("b", 1)
    end_hour(clock)
    rollup = leader(table, parts, clock)
    await rollup.step()
    process.totals.add(HOUR, Subject("a"), {READ: 1})
    await process.flusher.flush()
    await rollup.step()
    assert await used(parts) == {"a": {READ: 4}, "b": {READ: 1}}
    assert await numbers(parts) == [1, 2]
    process.totals.put_back_all(HOUR)
    await process.flusher.flush()
    await rollup.step()
    assert await numbers(parts) == [1, 2]  # nothing new
    assert await table.hours() == []


@pytest.mark.parametrize("killed_at", ["create", "remove", "delete"])
@pytest.mark.parametrize("applied", [False, True])
async def test_a_leader_that_is_killed_anywhere_is_followed_by_one_that_counts_the_same(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process,
    monkeypatch: pytest.MonkeyPatch, killed_at: str, applied: bool,
) -> None:  # fmt: skip
    class Killed(Exception):
        pass

    await process.count("a", 3)
    first = leader(table, parts, clock)
    await first.step()
    clock.time_s += CHECKPOINT_S
    await first.step()
    assert await numbers(parts) == [1]
    await process.count("b", 2)
    end_hour(clock)
    where = table if killed_at == "remove" else parts
    with monkeypatch.context() as patch:
        original = getattr(where, killed_at)

        async def kill(*args: object) -> None:
            if applied:
                await original(*args)
            raise Killed

        patch.setattr(where, killed_at, kill)
        with pytest.raises(Killed):
            await first.step()
    second = leader(table, parts, clock)
    await second.step()
    assert await used(parts) == {"a": {READ: 3}, "b": {READ: 2}}
    assert await table.hours() == []
    assert await numbers(parts) == [2]  # the final part, without the checkpoint


async def test_two_leaders_at_once_count_nothing_twice(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process
) -> None:
    await process.count("a", 3)
    end_hour(clock)
    create = parts.create
    other = leader(table, parts, clock)

    async def overtaken(part: object) -> bool:
        parts.create = create  # type: ignore[method-assign]
        await other.step()
        return await create(part)  # type: ignore[arg-type] # as it came

    parts.create = overtaken  # type: ignore[method-assign]
    rollup = leader(table, parts, clock)
    await rollup.step()
    await rollup.step()
    assert await used(parts) == {"a": {READ: 3}}
    assert await numbers(parts) == [1]
    assert await table.hours() == []


async def test_a_loss_of_redis_costs_what_dead_processes_counted_since_the_last_checkpoint(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process, redis: Redis, keys: Keys
) -> None:
    dead, alive = Process(table, clock), process
    await dead.count("a", 3)
    await alive.count("a", 10)
    first = leader(table, parts, clock)
    await first.step()
    clock.time_s += CHECKPOINT_S
    await first.step()
    await dead.count("a", 4)
    await alive.count("a", 20)
    await redis.delete(keys.usage(str(HOUR)), keys.usage_hours)
    await alive.count("b", 1)
    end_hour(clock)
    await leader(table, parts, clock).step()
    assert await used(parts) == {"a": {READ: 3 + 30}, "b": {READ: 1}}


async def test_an_hour_that_redis_has_lost_is_ended_from_its_checkpoints(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process, redis: Redis, keys: Keys
) -> None:
    await process.count("a", 3)
    first = leader(table, parts, clock)
    await first.step()
    clock.time_s += CHECKPOINT_S
    await first.step()
    await redis.delete(keys.usage(str(HOUR)), keys.usage_hours)
    end_hour(clock)
    await leader(table, parts, clock).step()
    shown = shown_hour(HOUR)
    rolled = await parts.read(shown, await numbers(parts))
    assert (rolled.final, rolled.checkpoints, list(rolled.numbers)) == (True, [], [2])
    assert by_tenant(rolled.entries) == {"a": {READ: 3}}


async def test_compactions_are_counted_for_the_tenant_of_their_collection(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process
) -> None:
    process.totals.add(HOUR, Subject("", "id"), {COMPACTED: 7})
    process.totals.add(HOUR, Subject("", "unknown"), {COMPACTED: 1})
    await process.flusher.flush()
    end_hour(clock)
    rollup = Rollup(table, parts, clock, "leader", lambda collection: "a" if collection == "id" else "")
    await rollup.step()
    assert await used(parts) == {"a": {COMPACTED: 7}, "": {COMPACTED: 1}}


async def test_a_damaged_part_is_named_and_the_others_count(
    table: UsageTable, parts: UsageParts, clock: SteppedClock, process: Process, objects: ObjectStore
) -> None:
    await process.count("a", 3)
    end_hour(clock)
    rollup = leader(table, parts, clock)
    await rollup.step()
    process.totals.add(HOUR, Subject("a"), {READ: 1})
    await process.flusher.flush()
    await rollup.step()
    key = usage_key(shown_hour(HOUR), 2)
    data = await objects.get(key)
    await objects.put(key, data.replace(b'"a"', b'"x"'))
    rolled = await parts.read(shown_hour(HOUR), await numbers(parts))
    assert by_tenant(rolled.entries) == {"a": {READ: 3}}
    assert "checksum" in rolled.damaged[key]
