"""A field of a state that cannot be read any more counts as lost: its collection alone waits until it is restored."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots, Snapshotter
from shared.catalog import Catalog
from shared.catalog.collector import Collector
from shared.catalog.damage import DamageKind
from shared.catalog.image import Images
from shared.errors import Corrupt, Gone, Unavailable
from shared.log.log import Log
from shared.log.naming import state_name
from shared.log.outputs import Outputs
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_lost_alone import database_of, made_with_log, recover_lost
from tests.logservice.restoring.test_rollback import Rolling
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, everything, make_collection

__all__ = ["world"]

GARBLED: Final = {
    "head": b"4\xb1",
    "gen": b"one",
    "config": b'{"space":"l2"',
    "layout": b"0 ",
    "laid_s": b"yesterday",
    "db": b"another database",
    "created": b"1.2.3",
    "backlog_ops": b"2e1",
    "backlog_bytes": b"",
    "dim": b"\xff",
}


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


@pytest.mark.parametrize("field", GARBLED)
async def test_a_field_that_cannot_be_read_is_filled_in_again_and_the_log_goes_on(
    world: World, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await made_with_log(world)
    before = await world.log.read(made.id, 0)
    await world.redis.hset(world.keys.state(made.id), field, GARBLED[field])
    with pytest.raises(Unavailable):
        await world.catalog.collections.get_by_id(await database_of(world), made.id)
    await recover_lost(world)
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    assert (back.fixed, back.layout, back.generation, back.dimension) == (made.fixed, made.layout, made.generation, 2)
    after = await world.log.read(made.id, 0)
    assert after.entries == before.entries
    assert (after.state.ops_backlog, after.state.pointer) == (before.state.ops_backlog, before.state.pointer)
    assert (await append(world.log, back, ["more"])).first >= before.state.head
    said = capsys.readouterr().out
    assert "state_unreadable" in said
    report = await world.images.read_report()
    assert report is not None
    [restored] = report["restored_states"]
    assert (restored["collection"], restored["name"], restored["fields"]) == (made.id, "hit", [field])
    assert await world.catalog.damages.names() == set()


async def test_the_registry_names_the_field_while_it_cannot_be_restored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await made_with_log(world)

    async def away(*_: object, **__: object) -> int:
        raise Unavailable("the bucket is away")

    await world.redis.hset(world.keys.state(made.id), "head", "?")
    with monkeypatch.context() as patched:
        patched.setattr(Images, "fill_state", away)
        with pytest.raises(Unavailable):
            await recover_lost(world, sweep=True)
    [damage] = await world.catalog.damages.all()
    assert (damage.name, damage.kind, damage.collection) == (state_name(made.id), DamageKind.STATE, made.id)
    assert "head was b'?'" in damage.what
    await recover_lost(world, sweep=True)
    assert await world.catalog.damages.all() == []


async def test_an_unreadable_state_refuses_appends_and_reads_and_is_not_written_to(world: World) -> None:
    made = await made_with_log(world)
    for field in ("head", "gen", "layout", "backlog_ops", "backlog_bytes"):
        whole = await world.redis.hget(world.keys.state(made.id), field)
        assert whole is not None
        await world.redis.hset(world.keys.state(made.id), field, GARBLED[field])
        with pytest.raises(Gone):
            await append(world.log, made, ["refused"])
        await world.redis.hset(world.keys.state(made.id), field, whole)
    await world.redis.hset(world.keys.state(made.id), "head", "?")
    for refused in (world.log.read(made.id, 0), world.log.readable(made.id)):
        with pytest.raises(Gone):
            await refused
    assert await world.log.states([(made.id, 0)]) == [None]


async def test_a_pointer_that_cannot_be_read_is_named_by_reads_of_what_is_compacted(world: World) -> None:
    made = await made_with_log(world)
    await world.redis.hset(world.keys.state(made.id), "m:0", "?")
    with pytest.raises(Corrupt) as failure:
        await world.log.compacted_to(made.id, made.layout)
    assert failure.value.name == state_name(made.id)


@pytest.mark.parametrize("field", ["m", "tail", "chain", "ops", "bytes", "trimmed_ops", "trimmed_bytes", "trimmed"])
async def test_a_field_of_a_shard_that_cannot_be_read_is_made_again(world: World, field: str) -> None:
    made = await made_with_log(world)
    database = await database_of(world)
    before = await world.log.read(made.id, 0)
    await world.redis.hset(world.keys.state(made.id), f"{field}:0", b"\xff?")
    if field == "m":
        with pytest.raises(Corrupt):
            await world.catalog.collections.get_by_id(database, made.id)
    await recover_lost(world, sweep=True)
    after = await world.log.read(made.id, 0)
    assert after.entries == before.entries
    # Up to where the stream was trimmed is known only as far as its oldest entry says.
    assert after.state.trimmed <= before.state.trimmed
    assert dataclasses.replace(after.state, trimmed=before.state.trimmed) == before.state
    back = await world.catalog.collections.get_by_id(database, made.id)
    assert back is not None
    assert (await append(world.log, back, ["more"])).first == before.state.head
    report = await world.images.read_report()
    assert report is not None
    assert report["restored_states"][-1]["fields"] == [f"{field}:0"]
    assert await world.catalog.damages.names() == set()


@pytest.mark.parametrize("field", ["tail:0", "chain:0", "ops:0", "bytes:0"])
async def test_nothing_is_appended_behind_a_newest_entry_that_the_state_does_not_tell_of(
    world: World, field: str
) -> None:
    made = await made_with_log(world)
    before = (await world.log.read(made.id, 0)).entries
    await world.redis.hset(world.keys.state(made.id), field, b"\xff?")
    with pytest.raises(Unavailable):
        await append(world.log, made, ["refused"])
    await recover_lost(world)  # the append had it noted
    assert (await world.log.read(made.id, 0)).entries == before
    await append(world.log, made, ["more"])
    assert len((await world.log.read(made.id, 0)).entries) == len(before) + 1


OF_A_TRIM: Final = (
    *((field, None) for field in ("backlog_ops", "backlog_bytes", "m:0")),
    *((field, b"\xff?") for field in ("backlog_ops", "backlog_bytes", "m:0", "copied:0", "epoch")),
    *((field, b"\xff?") for field in ("trimmed_ops:0", "trimmed_bytes:0", "trimmed:0")),
)


@pytest.mark.parametrize(("field", "value"), OF_A_TRIM)
async def test_nothing_is_trimmed_while_the_state_does_not_tell_what_was(
    world: World, field: str, value: bytes | None
) -> None:
    made = await made_with_log(world)
    await compact(world.log, world.objects, made.id, 0)
    state, key = (await world.log.read(made.id, 0)).state, world.keys.state(made.id)
    assert state.pointer is not None
    before = await world.redis.hget(key, field)
    await (world.redis.hdel(key, field) if value is None else world.redis.hset(key, field, value))
    assert await world.log.trim(made.id, 0, state.pointer, state.epoch) == 0
    await (world.redis.hdel(key, field) if before is None else world.redis.hset(key, field, before))
    assert await world.log.trim(made.id, 0, state.pointer, state.epoch) > 0


async def test_what_the_state_says_of_a_function_and_cannot_be_read_is_dropped_and_said_again(world: World) -> None:
    made = await made_with_log(world)
    key = world.keys.state(made.id)
    for field in ("feeds", "counted", "runs"):
        await world.redis.hset(key, field, b"\xff")
    with pytest.raises(Corrupt):
        await world.catalog.collections.get_by_id(await database_of(world), made.id)
    await recover_lost(world, sweep=True)
    found = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert found is not None
    assert (found.feeds, found.counted, found.runs) == (None, 0, 0)
    outputs = Outputs(world.redis, world.keys)
    for field in ("counted", "runs"):
        await world.redis.hset(key, "feeds", "output")
        await world.redis.hset(key, field, b"\xff")
        await outputs.note_run(made.id, found.epoch, "output", field, 1)
    assert await world.redis.hmget(key, ["counted", "runs"]) == [b"1", b"1"]


async def test_snapshots_wait_for_an_unreadable_state_and_go_on_when_it_is_restored(world: World) -> None:
    made = await made_with_log(world)
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    for number, field in enumerate(("head", "layout", "config", "dim")):
        await world.redis.hset(world.keys.state(made.id), field, GARBLED[field])
        with pytest.raises(Unavailable):
            await snapshotter.step(number)
        await recover_lost(world)
        assert await snapshotter.step(number)
    image = await world.snapshots.newest()
    assert image is not None
    assert made.id in {each.id for each in image.collections}


async def test_a_collection_whose_state_names_another_database_is_no_orphan(world: World) -> None:
    made = await made_with_log(world)
    before = (await world.log.read(made.id, 0)).entries
    await world.redis.hset(world.keys.state(made.id), "db", "another database")
    await Collector(world.redis, world.keys, world.catalog, orphan_age_s=0.0).collect_orphans()
    await recover_lost(world)
    assert (await world.log.read(made.id, 0)).entries == before


async def test_a_deleted_collection_is_collected_although_its_layout_cannot_be_read(world: World) -> None:
    database = await database_of(world)
    made = await make_collection(world.catalog, database, "doomed", 2)
    await append(world.log, made, [str(number) for number in range(20)])
    await world.redis.hset(world.keys.state(made.id), "layout", GARBLED["layout"])
    assert await world.catalog.collections.delete(database, "doomed")
    await Collector(world.redis, world.keys, world.catalog).collect_deleted()
    assert [key async for key in world.redis.scan_iter(f"*{made.id}*log*")] == []


@pytest.fixture
async def rolling(own_server: RedisServer, keys: Keys, objects: ObjectStore, tmp_path: Path) -> AsyncIterator[Rolling]:
    async with open_redis(own_server.url) as redis:
        catalog = Catalog(redis, keys)
        images, log = Images(redis, keys, catalog), Log(redis, keys)
        yield Rolling(own_server, catalog, images, log, objects, Snapshots(objects, 10), tmp_path / "copy")


async def test_a_redis_that_restarts_with_unreadable_states_is_opened_and_nothing_is_lost(
    rolling: Rolling, keys: Keys
) -> None:
    await rolling.reconcile()
    database = await rolling.database()
    damaged = {field: await make_collection(rolling.catalog, database, field) for field in GARBLED}
    sound = await make_collection(rolling.catalog, database, "sound")
    heads = {each.id: (await append(rolling.log, each, ["a", "b"])).head for each in (*damaged.values(), sound)}
    await rolling.snapshot()
    async with open_redis(rolling.server.url) as redis:
        for field, each in damaged.items():
            await redis.hset(keys.state(each.id), field, GARBLED[field])
    await asyncio.to_thread(rolling.server.kill)
    await asyncio.to_thread(rolling.server.start)
    await rolling.reconcile()
    for each in (*damaged.values(), sound):
        back = await rolling.catalog.collections.get_by_id(database, each.id)
        assert back is not None
        assert back.dimension == 2
        assert sorted((await everything(rolling.log, back)).values()) == ["a", "b"]
        assert (await append(rolling.log, back, ["x"])).first >= heads[each.id]
    report = await rolling.images.read_report()
    assert report is not None
    assert {each["name"]: each["fields"] for each in report["restored_states"]} == {each: [each] for each in GARBLED}
    assert await rolling.catalog.damages.names() == set()
