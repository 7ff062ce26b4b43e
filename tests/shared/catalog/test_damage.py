"""The registry of damage, on real servers, and the reporter that must hold nobody up."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared.catalog.damage import (
    NAMES_MAX,
    REPORT_AGAIN_S,
    TEXT_BYTES_MAX,
    Damage,
    DamageKind,
    DamageReporter,
    Damages,
    kind_of,
)
from shared.errors import Corrupt, Unavailable
from shared.log.naming import entry_name, state_name, stream_name
from shared.objects.keys import SealedRange
from shared.process.clock import SystemClock
from shared.redis.client import command
from shared.redis.keys import Keys

FILE = "c/0/segments/s/graph.hnsw"


class SteppedClock(SystemClock):
    """Stands still but for what a test adds; sleeping gives others their turn."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def monotonic(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Recorded(Damages):
    """A registry that remembers what it was told, and may be away."""

    def __init__(self) -> None:
        self.told: list[Damage | str] = []
        self.away = 0

    async def report(self, damage: Damage) -> bool:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        self.told.append(damage)
        return True

    async def clear(self, names: object) -> int:
        assert isinstance(names, list)
        self.told += names
        return len(names)


def damage(name: str, what: str = "fails its checksum") -> Damage:
    return Damage(name, kind_of(name), what, "reads are refused", "worker-1", 1234.5, "c", 0)


async def test_damage_is_kept_from_when_it_was_found_first_until_it_is_cleared(redis: Redis, keys: Keys) -> None:
    damages = Damages(redis, keys)
    assert await damages.all() == []
    assert await damages.report(damage(FILE))
    [first] = await damages.all()
    assert (first.name, first.kind, first.collection, first.shard) == (FILE, DamageKind.DERIVED, "c", 0)
    await asyncio.sleep(0.01)
    await damages.report(damage(FILE, "is missing"))
    await damages.report(damage("c/1/log/7-0"))
    again, entry = await damages.all()
    assert (again.what, again.found_s) == ("is missing", first.found_s)
    assert entry.kind is DamageKind.ENTRY
    assert entry.found_s > first.found_s
    assert await damages.clear([FILE, "another"]) == 1
    assert [each.name for each in await damages.all()] == ["c/1/log/7-0"]


async def test_the_registry_is_bounded_in_names_and_in_bytes(redis: Redis, keys: Keys) -> None:
    damages = Damages(redis, keys)
    long = damage("c/0/segments/" + "s" * 5000, what="ü" * 5000)
    assert await damages.report(long)
    [kept] = await damages.all()
    assert len(kept.name.encode()) == len(kept.what.encode()) == TEXT_BYTES_MAX
    await asyncio.gather(*(damages.report(damage(f"o{number}")) for number in range(NAMES_MAX - 1)))
    assert not await damages.report(damage("one more"))
    assert await damages.report(damage("o7", "is missing")), "what is known may change"
    assert await command(redis, "HLEN", keys.damage) == NAMES_MAX
    assert await damages.clear([long.name]) == 1
    assert await damages.report(damage("one more"))


async def test_an_entry_of_the_registry_that_is_damaged_itself_is_shown_as_one(redis: Redis, keys: Keys) -> None:
    damages = Damages(redis, keys)
    await damages.report(damage("c/1/log/7-0"))
    for value in (b"", b"x {}", b"12 {", b'12 {"name": 7}'):
        await command(redis, "HSET", keys.damage, FILE, value)
        found = await damages.measure()
        assert [each.name for each in found] == [FILE, "c/1/log/7-0"]
        assert "damaged" in found[0].what


async def test_damage_is_reported_while_the_server_is_out_of_memory(redis: Redis, keys: Keys) -> None:
    await command(redis, "CONFIG", "SET", "maxmemory", "1")
    try:
        assert await Damages(redis, keys).report(damage(FILE))
    finally:
        await command(redis, "CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c/0/manifests/00000000000000000001.json", DamageKind.MANIFEST),
        ("c/12/segments/s/records.arrow", DamageKind.RECORDS),
        ("c/0/segments/s/vectors.codes", DamageKind.DERIVED),
        ("c/roots/0000000000-00000000000000000001.json", DamageKind.ROOT),
        ("catalog/journal/7-w", DamageKind.JOURNAL),
        ("catalog/00000000000000000001.json.gz", DamageKind.SNAPSHOT),
        (entry_name("c", 3, "7-0"), DamageKind.ENTRY),
        (SealedRange("c", 3, 1, 9).key, DamageKind.SEALED),
        (stream_name("c", 3), DamageKind.ENTRY),
        (state_name("c"), DamageKind.STATE),
        ("c/0", DamageKind.OTHER),
    ],
)
def test_a_name_tells_what_is_damaged(name: str, kind: DamageKind) -> None:
    assert kind_of(name) is kind


async def test_a_reporter_says_the_same_only_once_in_a_while() -> None:
    registry, clock = Recorded(), SteppedClock()
    reporter = DamageReporter(registry, "me", clock)
    sending = asyncio.create_task(reporter.run())
    try:
        for _ in range(100):
            reporter.found(FILE, "is missing", "nothing")
        await settled(registry, 1)
        reporter.found(FILE, "is missing", "rebuilt here")
        await settled(registry, 2)
        clock.time_s += REPORT_AGAIN_S
        reporter.found(FILE, "is missing", "rebuilt here")
        await settled(registry, 3)
        reporter.whole(FILE)
        reporter.whole(FILE)
        reporter.whole("never reported")
        await settled(registry, 4)
        assert registry.told[3] == FILE
        reporter.found(FILE, "is missing", "rebuilt here")
        await settled(registry, 5)
    finally:
        sending.cancel()


async def test_a_reporter_neither_waits_nor_fails_while_redis_is_away_and_says_it_later() -> None:
    registry = Recorded()
    registry.away = 3
    reporter = DamageReporter(registry, "me", SteppedClock())
    assert reporter.met(Corrupt("the log ends inside an append"), "refused", "c", 4) == "c/4"
    for number in range(2 * NAMES_MAX):
        reporter.found(f"o{number}", "is missing", "refused")
    reporter.met(Corrupt("bad", FILE), "refused", "c", 4)
    sending = asyncio.create_task(reporter.run())
    try:
        await settled(registry, NAMES_MAX)
    finally:
        sending.cancel()
    told = [each for each in registry.told if isinstance(each, Damage)]
    assert FILE in {each.name for each in told}, "the newest reports are kept"
    assert len(told) == NAMES_MAX


async def settled(registry: Recorded, count: int) -> None:
    """Waits until the registry was told so often, and sees that it is told no more."""
    async with asyncio.timeout(5):
        while len(registry.told) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(registry.told) == count
