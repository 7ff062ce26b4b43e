"""Control records: what a change leaves in the bucket and in Redis, whoever else changes, sleeps, or is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.errors import AlreadyExists, Corrupt, Garbled, InvalidArgument
from shared.objects.memory import MemoryStore
from shared.objects.port import check_key
from shared.process.clock import SystemClock
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from shared.tenancy.control_model import RECORD_BYTES_MAX, ControlKind, decode_envelope, object_key, parse_key, place_of
from shared.tenancy.control_records import KEPT_S, ControlRecords
from tests.redis_server import RedisServer


class Clock(SystemClock):
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def now(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(clock: Clock) -> MemoryStore:
    return MemoryStore(clock.now)


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


@pytest.fixture
def records(redis: Redis, keys: Keys, objects: MemoryStore, clock: Clock) -> ControlRecords:
    return ControlRecords(redis, keys, objects, clock, "test")


async def live(records: ControlRecords, name: str) -> bytes | None:
    found = await records.look_up(ControlKind.KEYS, name)
    return None if found is None else found.content


async def stored(redis: Redis, keys: Keys, name: str) -> bytes:
    return bytes(await command(redis, "HGET", keys.control("keys"), name))


@pytest.mark.parametrize("name", ["plain", "a/b", "..", ".x", "~", "=x", "ü" * 300, "", "x" * 5000])
def test_every_name_has_a_place_of_its_own_that_a_store_can_take(name: str) -> None:
    key = object_key(ControlKind.TENANTS, name, 7)
    assert parse_key(key) == (ControlKind.TENANTS, place_of(name), 7)
    assert len(key) < 400
    check_key(key)
    names = ["plain", "a/b", "..", ".x", "~", "=x", "ü" * 300, "", "x" * 5000]
    assert len({place_of(each) for each in names}) == len(names)


async def test_a_change_is_in_the_bucket_and_in_redis_with_another_generation(
    records: ControlRecords, objects: MemoryStore
) -> None:
    before = await records.generation()
    changed = await records.create(ControlKind.KEYS, "k", b'{"n":1}')
    assert changed.live
    assert await live(records, "k") == b'{"n":1}'
    assert await records.generation() != before
    stored = decode_envelope(await objects.get("control/keys/k/0000000001.json"), "control/keys/k/0000000001.json")
    assert stored == changed.envelope
    with pytest.raises(AlreadyExists):
        await records.create(ControlKind.KEYS, "k", b"{}")
    again = await records.change(ControlKind.KEYS, "k", lambda body: (body or b"").replace(b"1", b"2"))
    assert (again.envelope.version, again.envelope.follows) == (2, stored.sha256)
    assert await live(records, "k") == b'{"n":2}'
    await records.change(ControlKind.KEYS, "k", lambda _: None)
    assert await live(records, "k") is None
    assert [record.version async for record in records.all(ControlKind.KEYS)] == [3]


async def test_of_racing_changes_none_is_lost(records: ControlRecords) -> None:
    await records.create(ControlKind.KEYS, "k", b"0")
    await asyncio.gather(
        *(records.change(ControlKind.KEYS, "k", lambda body: b"%d" % (int(body or b"0") + 1)) for _ in range(8))
    )
    assert await live(records, "k") == b"8"


async def test_an_older_version_never_replaces_a_newer_one_in_redis(
    records: ControlRecords, redis: Redis, keys: Keys
) -> None:
    await records.create(ControlKind.KEYS, "k", b"1")
    first = await stored(redis, keys, "k")
    await records.change(ControlKind.KEYS, "k", lambda _: b"2")
    second = await stored(redis, keys, "k")
    await records._put(ControlKind.KEYS, [("k", 1, first)])
    assert await live(records, "k") == b"2"
    await records._put(ControlKind.KEYS, [("k", 2, second), ("k", 10, second.replace(b'"version":2', b'"version":10'))])
    await records._put(
        ControlKind.KEYS, [("k", 9, second.replace(b'"version":2', b'"version":9').replace(b'"2"', b'"9"'))]
    )
    found = await records.look_up(ControlKind.KEYS, "k")
    assert found is not None
    assert found.version == 10


async def test_what_redis_lost_or_has_older_is_brought_up_to_the_bucket(
    records: ControlRecords, redis: Redis, keys: Keys
) -> None:
    for name in ("lost", "older", "same"):
        await records.create(ControlKind.KEYS, name, b"1")
    older = await stored(redis, keys, "older")
    await records.change(ControlKind.KEYS, "older", lambda _: b"2")
    await command(redis, "HSET", keys.control("keys"), "older", older)
    await command(redis, "HDEL", keys.control("keys"), "lost")
    before = await records.generation()
    assert await records.project() == 2
    assert [await live(records, name) for name in ("lost", "older", "same")] == [b"1", b"2", b"1"]
    assert await records.generation() != before
    assert await records.project() == 0


async def test_opening_draws_another_generation_even_when_nothing_is_newer(records: ControlRecords) -> None:
    """A copy of Redis that was put back has the word that processes remember records by."""
    await records.create(ControlKind.KEYS, "k", b"1")
    before = await records.generation()
    await records.project()
    assert await records.generation() == before
    await records.project(opening=True)
    assert await records.generation() != before


async def test_a_change_holds_although_redis_takes_nothing(
    keys: Keys, objects: MemoryStore, clock: Clock, own_server: RedisServer
) -> None:
    async with open_redis(own_server.url) as redis:
        records = ControlRecords(redis, keys, objects, clock, "test")
        await records.create(ControlKind.KEYS, "k", b"1")
        own_server.kill()
        changed = await records.change(ControlKind.KEYS, "k", lambda _: b"2")
        assert not changed.live
        own_server.start()
        assert await live(records, "k") == b"1"
        await records.project()
        assert await live(records, "k") == b"2"


async def test_a_damaged_version_counts_as_a_deletion_and_never_as_the_one_before_it(
    records: ControlRecords, objects: MemoryStore, redis: Redis, keys: Keys
) -> None:
    await records.create(ControlKind.KEYS, "k", b'{"revoked":false}')
    changed = await records.change(ControlKind.KEYS, "k", lambda _: b'{"revoked":true}')
    damaged = changed.envelope.encode().replace(b"true", b"null")
    await objects.put(changed.envelope.key, damaged)
    await redis.delete(keys.control("keys"))
    await records.project()
    assert await live(records, "k") is None
    with pytest.raises(Corrupt, match="checksum"):
        await records.read(ControlKind.KEYS, "k")
    bodies: list[bytes | None] = []
    again = await records.change(ControlKind.KEYS, "k", lambda body: bodies.append(body) or b"3")  # type: ignore[func-returns-value]
    assert (bodies, again.envelope.version) == ([None], 3)
    assert await live(records, "k") == b"3"


async def test_replaced_versions_go_after_their_time_and_the_newest_stays(
    records: ControlRecords, objects: MemoryStore, clock: Clock
) -> None:
    await records.create(ControlKind.KEYS, "k", b"1")
    await records.change(ControlKind.KEYS, "k", lambda _: b"2")
    clock.now_s += KEPT_S
    await records.change(ControlKind.KEYS, "k", lambda _: b"3")
    assert await records.tidy() == 0
    clock.now_s += 1
    assert await records.tidy() == 1
    assert [info.key[-6:] async for info in objects.list("control/")] == ["2.json", "3.json"]
    clock.now_s += KEPT_S
    assert await records.tidy() == 1
    assert await records.tidy() == 0
    assert (await records.read(ControlKind.KEYS, "k")) is not None


class Sleepy(MemoryStore):
    """A store whose next `create` waits for `go`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.now)
        self.asleep = asyncio.Event()
        self.go: asyncio.Event | None = None

    async def create(self, key: str, data: bytes) -> bool:
        if self.go is not None:
            go, self.go = self.go, None
            self.asleep.set()
            await go.wait()
        return await super().create(key, data)


async def test_a_writer_that_slept_until_its_version_was_tidied_away_changes_what_is_there_now(
    redis: Redis, keys: Keys, clock: Clock
) -> None:
    store = Sleepy(clock)
    records = ControlRecords(redis, keys, store, clock, "test")
    await records.create(ControlKind.KEYS, "k", b'["1"]')
    go = store.go = asyncio.Event()
    bodies: list[bytes | None] = []
    slow = asyncio.create_task(
        records.change(ControlKind.KEYS, "k", lambda body: bodies.append(body) or b'["slow"]')  # type: ignore[func-returns-value]
    )
    await store.asleep.wait()
    await records.change(ControlKind.KEYS, "k", lambda _: b'["2"]')
    await records.change(ControlKind.KEYS, "k", lambda _: b'["revoked"]')
    clock.now_s += KEPT_S + 1
    await records.tidy()
    go.set()
    changed = await slow
    assert bodies == [b'["1"]', b'["revoked"]']
    assert changed.envelope.version == 4


async def test_a_record_in_redis_that_cannot_be_read_is_refused_and_projected_anew(
    records: ControlRecords, redis: Redis, keys: Keys
) -> None:
    await records.create(ControlKind.KEYS, "k", b'{"n":1}')
    await records.create(ControlKind.KEYS, "other", b"{}")
    await redis.hset(keys.control("keys"), "k", b"\xff")
    await redis.set(keys.control_generation, b"\xff")
    with pytest.raises(Garbled) as failure:
        await live(records, "k")
    assert failure.value.name == "control/keys/k"
    assert await live(records, "other") == b"{}"
    before = await records.generation()
    assert await records.project() == 1
    assert await live(records, "k") == b'{"n":1}'
    assert await records.generation() != before


async def test_a_record_that_nobody_would_read_is_refused_before_it_is_written(
    records: ControlRecords, objects: MemoryStore
) -> None:
    await records.create(ControlKind.TENANTS, "t", b'"short"')
    with pytest.raises(InvalidArgument, match="at most 262144 are kept"):
        await records.change(ControlKind.TENANTS, "t", lambda _: b'"' + b"x" * RECORD_BYTES_MAX + b'"')
    kept = await records.read(ControlKind.TENANTS, "t")
    assert kept is not None
    assert kept.content == b'"short"'
