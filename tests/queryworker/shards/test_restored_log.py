"""Workers that have seen what a lost Redis held: they go on with what was restored (promise 5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import limits
from shared.cluster.placement import Layout
from shared.errors import Damaged, StaleRead
from shared.log.naming import stream_name
from shared.log.state import Pointer
from shared.records.model import Op, ReadLevel
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import assert_get
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


def _adds(first: int, count: int) -> list[Operation]:
    return [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(first, first + count)]


async def _pointer(world: World) -> Pointer | None:
    [state] = await world.log.states([(world.collection, 0)])
    assert state is not None
    return state.pointer


async def _lose_and_restore(world: World, keys: Keys, pointer: Pointer | None) -> None:
    """What reconciliation makes of an empty Redis."""
    await world.redis.delete(keys.state(world.collection), keys.log(world.collection, 0))
    fixed = {"space": "l2", "shards": 1, "ef_construction": 100, "max_neighbors": 16}
    world.head += limits.BACKLOG_OPS_CEILING
    await world.lifecycle.restore(
        world.collection,
        world.head,
        1,
        world.head,
        database_key="db",
        fixed=fixed,
        generation=0,
        dimension=2,
        layout=Layout(0, 1),
        pointers=[pointer],
    )
    covers = pointer.covers if pointer else 1
    world.state = dict(world.states[covers])


@pytest.mark.parametrize("compacted", [True, False])
async def test_a_worker_that_saw_writes_which_are_lost_goes_on_from_the_newest_manifest(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, *, compacted: bool
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        if compacted:
            await world.write(_adds(0, 10))
            await world.compact()
        pointer = await _pointer(world)
        await world.write([*_adds(10, 5), Operation(Op.DELETE, "r3")])
        await assert_get(world, world.state)
        await _lose_and_restore(world, keys, pointer)
        await assert_get(world, world.state)
        await world.write([Operation(Op.DELETE, "r4"), *_adds(20, 3)])
        await assert_get(world, world.state)
        await world.compact()
        await world.load_newest_manifests()
        await assert_get(world, world.state)


async def test_a_worker_whose_manifest_was_given_up_by_a_restoration_goes_on_from_the_one_that_was_taken(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """The root named an older manifest of the shard than its newest: nothing of the newer one may show any more."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await world.compact()
        taken = await _pointer(world)
        await world.write([*_adds(10, 5), Operation(Op.DELETE, "r3")])
        await world.compact()
        await world.load_newest_manifests()
        await assert_get(world, world.state)
        await _lose_and_restore(world, keys, taken)
        await assert_get(world, world.state)
        await world.write([Operation(Op.DELETE, "r4"), *_adds(12, 3)])
        await assert_get(world, world.state)


async def test_a_read_that_began_before_a_loss_is_not_answered_from_what_was_restored(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Another shard may have answered it before, with what is lost."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await world.compact()
        pointer = await _pointer(world)
        await world.write([*_adds(10, 5), Operation(Op.DELETE, "r3")])
        began_at = world.head
        await _lose_and_restore(world, keys, pointer)
        for _ in range(2):  # with the check of this read, and without one of its own
            with pytest.raises(StaleRead, match="before a restoration"):
                await world.worker.count(messages.CountRequest(world.shard(as_of=began_at)))
        compacted = world.shard(as_of=pointer.covers if pointer else 1, read_level=ReadLevel.INDEX_ONLY)
        assert (await world.worker.count(messages.CountRequest(compacted))).count == 10


async def test_a_worker_lets_go_at_once_of_a_manifest_that_a_restoration_has_given_up(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """It covers everything that the worker has seen, so there is no gap in the log. Found by tests/simulation."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await world.compact()
        await world.load_newest_manifests()
        await assert_get(world, world.state)
        await _lose_and_restore(world, keys, None)
        await assert_get(world, {})
        await world.write(_adds(20, 3))
        await assert_get(world, world.state)


async def test_a_log_that_lost_entries_in_its_middle_stays_corrupt_for_a_worker_that_saw_them(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Beginning again from the manifest must not hide a gap."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        lost = await world.write(_adds(0, 2))
        await world.write(_adds(2, 2))
        await assert_get(world, world.state)
        await world.redis.xtrim(keys.log(world.collection, 0), minid=f"{lost}-0", approximate=False)
        await world.write(_adds(4, 2))
        await assert_get(world, world.state)  # it has them all
        await world.redis.xtrim(keys.log(world.collection, 0), maxlen=0, approximate=False)
        await world.write(_adds(6, 2))
        await assert_get(world, world.state)
        await world.write(_adds(8, 2))
        await world.redis.xtrim(keys.log(world.collection, 0), maxlen=0, approximate=False)
        for _ in range(2):
            with pytest.raises(Damaged, match=stream_name(world.collection, 0)):
                await world.worker.count(messages.CountRequest(world.shard()))
            assert ["the log lost it" in reported.what for reported in await world.reported()] == [True]


async def test_an_operation_that_is_in_no_log_any_more_is_served_no_more(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Redis went back, and the position was handed out again: the ids of the entries are equal, their chains are not.
    (Heads are raised after a restart; a worker does not rely on it.)
    """
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        names = (keys.state(world.collection), keys.log(world.collection, 0))
        await world.write(_adds(0, 2))
        dumps = [await world.redis.dump(name) or b"" for name in names]
        before = dict(world.state)
        for behind in (
            0,
            1,
        ):  # the worker's view ends with the lost entry, or the log goes on behind another one like it
            world.state = dict(before)
            await world.write(_adds(10, 1))
            await assert_get(world, world.state)
            for name, dump in zip(names, dumps, strict=True):
                await world.redis.restore(name, 0, dump, replace=True)
            world.state, world.head = dict(before), 3
            await world.write(_adds(20, 1))
            for number in range(behind):
                await world.write(_adds(30 + number, 1))
            await assert_get(world, world.state)
            assert "r10" not in world.state
            for name, dump in zip(names, dumps, strict=True):
                await world.redis.restore(name, 0, dump, replace=True)
            world.state, world.head = dict(before), 3
            await assert_get(world, world.state)
