"""Fresh and never lost: reads while the log moves under the worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queryworker.view.shard_view import ShardView
from shared.catalog.damage import DamageKind
from shared.cluster.placement import Layout
from shared.errors import Damaged, Gone
from shared.log.batch import decode_batch
from shared.log.naming import entry_name, stream_name
from shared.log.state import Entry, after_position
from shared.records.model import ReadLevel
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import assert_get
from tests.queryworker.world import adds, open_world
from tests.redis_server import RedisServer


async def test_requests_that_wait_share_one_read_of_the_log(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 10))
        await world.count()
        log = world.worker.log
        log.reads = 0
        log.open.clear()
        log.arrived.clear()
        first = asyncio.create_task(world.count())
        await log.arrived.wait()
        later = [asyncio.create_task(world.count()) for _ in range(50)]
        await asyncio.sleep(0)
        log.open.set()
        assert await first == 10
        assert await asyncio.gather(*later) == [10] * 50
        assert log.reads == 2


async def test_a_request_that_arrives_during_a_read_of_the_log_waits_for_the_next_one(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Promise 4: the read in flight may have been answered before the write was acknowledged."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 1))
        await world.count()
        shard, log = world.served, world.worker.log
        real_read = log._log.read
        held = asyncio.Event()

        async def answered_late(*args: object) -> object:
            answer = await real_read(*args)  # type: ignore[arg-type]
            log.arrived.set()
            await held.wait()
            return answer

        log._log.read = answered_late  # type: ignore[method-assign, assignment]
        log.arrived.clear()
        early = asyncio.create_task(shard.current_view())
        await log.arrived.wait()
        log._log.read = real_read  # type: ignore[method-assign]
        await world.write(adds(1, 1))
        late = asyncio.create_task(world.count())
        await asyncio.sleep(0)
        held.set()
        await early
        assert await late == 2


async def test_a_request_that_gives_up_does_not_end_the_read_that_others_share(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 3))
        world.worker.log.open.clear()
        impatient, patient = asyncio.create_task(world.count()), asyncio.create_task(world.count())
        await world.worker.log.arrived.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        world.worker.log.open.set()
        assert await patient == 3


async def test_entries_that_no_manifest_covers_and_the_log_lost_are_reported_never_passed_over(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 2))
        await world.count()
        lost = await world.write(adds(2, 2))
        await world.write(adds(4, 2))
        await world.redis.xdel(keys.log(world.collection, 0), after_position(lost - 1))
        with pytest.raises(Damaged):
            await world.count()
        [reported] = await world.reported()
        assert (reported.name, reported.kind) == (entry_name(world.collection, 0, "3-0"), DamageKind.ENTRY)
        assert "the log lost it, before 5-0" in reported.what


async def test_a_tail_that_ends_before_its_newest_entry_is_reported(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 2))
        await world.redis.delete(keys.log(world.collection, 0))
        with pytest.raises(Damaged, match=stream_name(world.collection, 0)):
            await world.count()
        [reported] = await world.reported()
        assert "the log lost it, at the end" in reported.what


async def test_a_log_that_was_lost_and_restored_from_the_bucket_is_followed_from_there(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Promise 5: what no manifest had is gone, for a worker that still remembers it too."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.compact()
        compacted = dict(world.state)
        await world.write(adds(5, 5))
        await assert_get(world, world.state)
        [state] = await world.log.states([(world.collection, 0)])
        assert state is not None
        await world.redis.delete(keys.state(world.collection), keys.log(world.collection, 0))
        with pytest.raises(Gone):
            await world.count()
        await world.lifecycle.restore(
            world.collection, 1000, 1, 1000, database_key="db", fixed=state.fixed, generation=1, dimension=2,
            layout=Layout(0, 1), pointers=[state.pointer],
        )  # fmt: skip
        world.state = dict(compacted)
        await assert_get(world, world.state)
        await world.write(adds(20, 3))
        await assert_get(world, world.state)


async def test_a_view_is_rebuilt_after_an_entry_could_not_be_applied(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.count()

        def half(view: ShardView, entries: list[Entry], _: object) -> None:
            view.memtable.apply(decode_batch(entries[0].payload), entries[0].first, entries[0].end)
            raise MemoryError

        await world.write(adds(5, 5))
        await world.write(adds(10, 5))
        with monkeypatch.context() as patched:
            patched.setattr(ShardView, "apply", half)
            with pytest.raises(MemoryError):
                await world.count()
        await assert_get(world, world.state)


async def test_a_shard_let_go_while_requests_wait_for_it_still_answers_them(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        world.worker.log.open.clear()
        waiting = asyncio.create_task(world.count())
        await world.worker.log.arrived.wait()
        world.worker.shards._idle_max_s = -1.0
        world.worker.shards.evict()
        assert not world.worker.shards._shards
        world.worker.log.open.set()
        assert await waiting == 5


async def test_a_deleted_collection_is_gone_whatever_was_cached(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 2))
        await world.count()
        await world.lifecycle.mark_deleted([world.collection])
        for _ in range(2):
            with pytest.raises(Gone):
                await world.count()
        assert not world.worker.shards._shards
        with pytest.raises(Gone):
            await world.worker.count(messages.CountRequest(world.shard(read_level=ReadLevel.INDEX_ONLY)))
