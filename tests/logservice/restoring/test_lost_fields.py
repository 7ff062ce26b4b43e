"""A field that says something of a shard is lost alone, or the stream: noticed, named, and restored or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from logservice.scheduling.rounds import Rounds
from shared.catalog import Collection
from shared.errors import Unavailable
from shared.log.cuts import Cuts
from shared.log.log import Log
from shared.log.naming import entry_name
from shared.log.state import after_position
from shared.log.verification import DamagedEntry
from shared.manifest.roots import RootStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from tests.logservice.compacting import compact, publish
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_lost_alone import database_of, made_with_log, recover_lost
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_collection

__all__ = ["world"]

FIELDS = ("m", "tail", "chain", "ops", "bytes", "trimmed", "trimmed_ops", "trimmed_bytes")


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


async def _lose(world: World, collection: Collection, *fields: str) -> None:
    await world.redis.hdel(world.keys.state(collection.id), *(f"{field}:0" for field in fields))


async def _ids(log: Log, collection: Collection) -> list[str]:
    """The entries behind the committed manifest, as a reader gets them that has loaded it."""
    state = (await log.read(collection.id, 0)).state
    covers = state.pointer.covers if state.pointer else 1
    read = await log.read(collection.id, 0, after_position(covers))
    assert read.complete
    return [entry.id for entry in read.entries]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("meanwhile", ["nothing", "an append"])
async def test_a_field_that_is_lost_alone_never_hides_or_breaks_anything(
    world: World, field: str, meanwhile: str
) -> None:
    made = await made_with_log(world)
    before, known = (await world.log.read(made.id, 0)).state, await _ids(world.log, made)
    await _lose(world, made, field)
    with suppress(Unavailable):
        assert await _ids(world.log, made) == known
    added = 0
    if meanwhile == "an append":
        with suppress(Unavailable):
            await append(world.log, made, ["meanwhile"])
            added = 1
    await recover_lost(world)
    await append(world.log, made, ["after"])
    state = (await world.log.read(made.id, 0)).state
    assert state.pointer == before.pointer
    ids = await _ids(world.log, made)
    assert ids[: len(known)] == known
    assert len(ids) == len(known) + added + 1
    pointer = await compact(world.log, world.objects, made.id, 0)
    assert await world.log.trim(made.id, 0, pointer, 0) == len(ids)
    state = (await world.log.read(made.id, 0)).state
    assert (state.ops_backlog, state.bytes_backlog) == (0, 0)
    backlog = await world.redis.hmget(world.keys.state(made.id), "backlog_ops", "backlog_bytes")
    assert backlog == [b"0", b"0"], "what the backlog is bounded by"


async def test_all_that_a_state_says_of_a_stream_is_lost_and_comes_back(world: World) -> None:
    made = await made_with_log(world)
    before = await world.log.read(made.id, 0)
    await _lose(world, made, "tail", "chain", "ops", "bytes", "trimmed", "trimmed_ops", "trimmed_bytes")
    with pytest.raises(Unavailable):
        await world.log.read(made.id, 0)
    with pytest.raises(Unavailable):
        await append(world.log, made, ["refused"])
    await recover_lost(world)
    after = await world.log.read(made.id, 0)
    assert after.entries == before.entries
    assert (after.state.tail, after.state.chain) == (before.state.tail, before.state.chain)
    report = await world.images.read_report()
    assert report is not None
    assert "tail:0" in report["restored_states"][0]["fields"]


async def test_a_shard_that_lost_its_pointer_is_not_served_and_not_compacted_without_what_was_trimmed(
    world: World,
) -> None:
    made = await made_with_log(world)
    before = (await world.log.read(made.id, 0)).state
    assert before.pointer is not None
    await _lose(world, made, "m")
    with pytest.raises(Unavailable):
        await world.log.read(made.id, 0)
    orphan = await publish(world.objects, made.id, 0, before.head, before.pointer)
    assert not await world.log.commit(made.id, 0, None, orphan, 0), "it would seem to have what was trimmed"
    await recover_lost(world)
    assert (await world.log.read(made.id, 0)).state.pointer in (before.pointer, orphan)


async def test_a_stream_that_is_lost_is_named_with_its_positions_whatever_is_appended_behind_it(world: World) -> None:
    made = await made_with_log(world)
    before = await world.log.read(made.id, 0)
    await world.redis.delete(world.keys.log(made.id, 0))
    for appended in (False, True):
        if appended:
            await append(world.log, made, ["behind the hole"])
        with pytest.raises(DamagedEntry) as failure:
            await world.log.read(made.id, 0)
        assert failure.value.name == entry_name(made.id, 0, before.state.tail)
        assert failure.value.first <= 41
        assert failure.value.end in (None, before.state.head)


async def test_a_stream_that_was_trimmed_to_nothing_goes_on_after_its_counters_were_lost(world: World) -> None:
    made = await made_with_log(world)
    pointer = await compact(world.log, world.objects, made.id, 0)
    await world.log.trim(made.id, 0, pointer, 0)
    for fields in (("tail",), ("ops",), ("bytes",), ("tail", "chain"), ("ops", "bytes"), ("trimmed", "tail")):
        await _lose(world, made, *fields)
        with pytest.raises(Unavailable):
            await append(world.log, made, ["refused"])
        await recover_lost(world)
    await append(world.log, made, ["after"])
    assert len(await _ids(world.log, made)) == 1
    pointer = await compact(world.log, world.objects, made.id, 0)
    assert await world.log.trim(made.id, 0, pointer, 0) == 1
    assert await world.redis.hmget(world.keys.state(made.id), "backlog_ops", "backlog_bytes") == [b"0", b"0"]


async def test_states_that_lost_nothing_are_not_touched(world: World) -> None:
    made = await made_with_log(world)
    await append(world.log, made, ["more"])
    before = await world.redis.hgetall(world.keys.state(made.id))
    await recover_lost(world, sweep=True)
    await world.catalog.losses.note(made.database_key)
    await recover_lost(world)
    assert await world.redis.hgetall(world.keys.state(made.id)) == before
    assert "restored_states" not in (await world.images.read_report() or {})


async def test_a_pointer_that_is_lost_right_after_a_restoration_is_missed(world: World) -> None:
    """Nothing was trimmed since, and the log is empty: the state alone would say that there is nothing."""
    made = await made_with_log(world)
    await world.restore()
    before = (await world.log.read(made.id, 0)).state
    assert before.pointer is not None
    await _lose(world, made, "m")
    with pytest.raises(Unavailable):
        await world.log.read(made.id, 0)
    await recover_lost(world)
    assert (await world.log.read(made.id, 0)).state.pointer == before.pointer


@pytest.mark.parametrize("lost", ["cut", "tail"])
async def test_no_root_is_written_of_a_round_when_it_is_lost_how_far_a_shard_must_get(world: World, lost: str) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit", 2)
    await append(world.log, made, [str(number) for number in range(20)])
    cuts, roots = Cuts(world.redis, world.keys), RootStore(world.objects)
    rounds = Rounds(cuts, world.objects, SystemClock())
    rounds.watch(made.id, made.layout)
    before = await roots.keys(made.id)
    if lost == "cut":
        assert sorted(number for _, number, _ in await rounds.step({made.id: 1.0})) == [0, 1]
    await world.redis.hdel(world.keys.state(made.id), f"{lost}:1")
    if lost == "tail":
        await rounds.step({made.id: 1.0})
    await compact(world.log, world.objects, made.id, 0)
    await rounds.step({made.id: 1.0})
    found = [await roots.load(key) for key in await roots.keys(made.id) if key not in before]
    assert all(root.position == 1 for root in found), "the second shard has nothing of it in a manifest"


async def _restart_with_less(world: World) -> None:
    """Redis restarts, and the state of another collection is gone: all are compared with the bucket."""
    other = await make_collection(world.catalog, await database_of(world), "other")
    await world.snapshot()
    await world.redis.delete(world.keys.state(other.id))
    await world.redis.hdel(world.keys.cluster, "verified")
    await world.reconciler().run()


@pytest.mark.parametrize(
    "fields", [("tail",), ("chain",), ("tail", "chain", "ops", "bytes"), ("m",), ("trimmed", "trimmed_ops")]
)
@pytest.mark.parametrize("shards", [1, 2])
async def test_a_restart_with_a_torn_state_loses_nothing_of_its_log(
    world: World, fields: tuple[str, ...], shards: int
) -> None:
    made = await made_with_log(world, shards)
    known = [(await world.log.read(made.id, shard)).entries for shard in made.layout.numbers]
    await _lose(world, made, *fields)
    await _restart_with_less(world)
    assert [(await world.log.read(made.id, shard)).entries for shard in made.layout.numbers] == known
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    await append(world.log, back, ["after"])
    report = await world.images.read_report()
    assert report is not None
    named = {each["collection"]: each["fields"] for each in report["restored_states"]}
    assert fields == ("m",) or set(named[made.id]) == {f"{field}:0" for field in fields}


async def test_a_restart_alone_fills_a_torn_state_in_before_anybody_is_let_in(world: World) -> None:
    made = await made_with_log(world)
    await world.snapshot()
    known = (await world.log.read(made.id, 0)).entries
    await _lose(world, made, "tail", "chain")
    await world.redis.hdel(world.keys.cluster, "verified")
    await world.reconciler().run()
    assert (await world.log.read(made.id, 0)).entries == known
    report = await world.images.read_report()
    assert report is not None
    assert report["restored_states"][0]["fields"] == ["tail:0", "chain:0"]


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_restart_with_a_state_that_lost_its_epoch_loses_nothing_of_its_log(world: World, shards: int) -> None:
    """It would seem to be of before the restoration whose root the bucket has."""
    made = await made_with_log(world, shards)
    await world.restore()
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    await append(world.log, back, [str(number) for number in range(8)])
    known = [(await world.log.read(made.id, shard)).entries for shard in made.layout.numbers]
    assert any(known)
    await world.redis.hdel(world.keys.state(made.id), "epoch")
    await _restart_with_less(world)
    assert [(await world.log.read(made.id, shard)).entries for shard in made.layout.numbers] == known
    state = (await world.log.read(made.id, 0)).state
    assert state.epoch == (await world.cluster()).epoch
