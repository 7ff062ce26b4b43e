"""Fresh, whole and never lost: what a worker does while the log and the manifests move under it."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from queryworker.shard import ServedShard
from queryworker.view import ShardView
from shared.errors import Corrupt, Gone, PolychromeError, Unavailable
from shared.log.batch import decode_batch
from shared.log.state import Entry, after_position
from shared.model import Op, ReadLevel
from shared.objects.port import ObjectNotFound
from shared.placement import Layout
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.memtable.model import Operation
from tests.queryworker.truth import assert_get, get_request
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer


def _adds(first: int, count: int) -> list[Operation]:
    return [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(first, first + count)]


def _shard(world: World) -> ServedShard:
    return world.worker.shards._shards[world.collection, 0]


async def _count(world: World) -> int:
    return (await world.worker.count(messages.CountRequest(world.shard()))).count


async def test_requests_that_wait_share_one_read_of_the_log(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await _count(world)
        log = world.worker.log
        log.reads = 0
        log.open.clear()
        log.arrived.clear()
        first = asyncio.create_task(_count(world))
        await log.arrived.wait()
        later = [asyncio.create_task(_count(world)) for _ in range(50)]
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
        await world.write(_adds(0, 1))
        await _count(world)
        shard, log = _shard(world), world.worker.log
        real_read = log._log.read
        held = asyncio.Event()

        async def answered_late(*args: object) -> object:
            answer = await real_read(*args)  # type: ignore[arg-type]
            log.arrived.set()
            await held.wait()
            return answer

        log._log.read = answered_late  # type: ignore[method-assign, assignment]
        log.arrived.clear()
        early = asyncio.create_task(shard.current())
        await log.arrived.wait()
        log._log.read = real_read  # type: ignore[method-assign]
        await world.write(_adds(1, 1))
        late = asyncio.create_task(_count(world))
        await asyncio.sleep(0)
        held.set()
        await early
        assert await late == 2


async def test_a_request_that_gives_up_does_not_end_the_read_that_others_share(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 3))
        world.worker.log.open.clear()
        impatient, patient = asyncio.create_task(_count(world)), asyncio.create_task(_count(world))
        await world.worker.log.arrived.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        world.worker.log.open.set()
        assert await patient == 3


async def test_readers_do_not_wait_while_a_new_manifest_is_loaded(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 20))
        await _count(world)
        loader, entered, release = world.worker.loader, asyncio.Event(), asyncio.Event()
        load = loader.load

        async def slow(*args: object) -> object:
            entered.set()
            await release.wait()
            return await load(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(loader, "load", slow)
        await world.compact()
        assert await _count(world) == 20  # notices the manifest
        await entered.wait()
        old = _shard(world)._view
        for _ in range(5):
            await world.write(
                [Operation(Op.DELETE, f"r{len(world.state) - 1}"), Operation(Op.UPDATE, "r0", document="x")]
            )
            await assert_get(world, world.state)
        assert _shard(world)._view is old
        release.set()
        await world.settled()
        assert _shard(world)._view is not old
        await assert_get(world, world.state)


async def test_a_worker_that_lags_behind_the_trimming_starts_again_from_the_newest_manifest(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await assert_get(world, world.state)
        for first in (10, 20, 30):
            await world.write(_adds(first, 10))
            await world.compact()
        await world.write([Operation(Op.DELETE, "r5"), *_adds(40, 5)])
        await assert_get(world, world.state)


async def test_manifests_that_follow_each_other_faster_than_they_load_are_caught_up_with(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 10))
        await world.compact()
        load, rounds = world.worker.loader.load, iter((10, 20, 30))

        async def overtaken(*args: object) -> object:
            base = await load(*args)  # type: ignore[arg-type]
            for first in rounds:
                await world.write(_adds(first, 10))
                await world.compact()
                break
            return base

        monkeypatch.setattr(world.worker.loader, "load", overtaken)
        await assert_get(world, world.state)


async def test_entries_that_no_manifest_covers_and_the_log_lost_are_reported_never_passed_over(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 2))
        await _count(world)
        lost = await world.write(_adds(2, 2))
        await world.write(_adds(4, 2))
        await world.redis.xdel(keys.log(world.collection, 0), after_position(lost - 1))
        with pytest.raises(Corrupt, match="entry 5-0 follows 3-0, not 1-0"):
            await _count(world)


async def test_a_tail_that_ends_before_its_newest_entry_is_reported(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 2))
        await world.redis.delete(keys.log(world.collection, 0))
        with pytest.raises(Corrupt, match="lost entries"):
            await _count(world)


async def test_a_log_that_was_lost_and_restored_from_the_bucket_is_followed_from_there(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Promise 5: what no manifest had is gone, for a worker that still remembers it too."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        await world.compact()
        compacted = dict(world.state)
        await world.write(_adds(5, 5))
        await assert_get(world, world.state)
        [state] = await world.log.states([(world.collection, 0)])
        assert state is not None
        await world.redis.delete(keys.state(world.collection), keys.log(world.collection, 0))
        with pytest.raises(Gone):
            await _count(world)
        await world.lifecycle.restore(
            world.collection, 1000, database_key="db", fixed=state.fixed, generation=1, dimension=2,
            layout=Layout(0, 1), pointers=[state.pointer],
        )  # fmt: skip
        world.state = dict(compacted)
        await assert_get(world, world.state)
        await world.write(_adds(20, 3))
        await assert_get(world, world.state)


async def test_a_view_is_rebuilt_after_an_entry_could_not_be_applied(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        await _count(world)

        def half(view: ShardView, entries: list[Entry]) -> None:
            view.memtable.apply(decode_batch(entries[0].payload), entries[0].first, entries[0].end)
            raise MemoryError

        await world.write(_adds(5, 5))
        await world.write(_adds(10, 5))
        with monkeypatch.context() as patched:
            patched.setattr(ShardView, "apply", half)
            with pytest.raises(MemoryError):
                await _count(world)
        await assert_get(world, world.state)


async def test_a_shard_let_go_while_requests_wait_for_it_still_answers_them(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        world.worker.log.open.clear()
        waiting = asyncio.create_task(_count(world))
        await world.worker.log.arrived.wait()
        world.worker.shards._idle_max_s = -1.0
        world.worker.shards.tidy()
        assert not world.worker.shards._shards
        world.worker.log.open.set()
        assert await waiting == 5


async def test_a_deleted_collection_is_gone_whatever_was_cached(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 2))
        await _count(world)
        await world.lifecycle.mark_deleted([world.collection])
        for _ in range(2):
            with pytest.raises(Gone):
                await _count(world)
        assert not world.worker.shards._shards
        with pytest.raises(Gone):
            await world.worker.count(messages.CountRequest(world.shard(read_level=ReadLevel.INDEX_ONLY)))


async def test_a_damaged_copy_of_a_segment_is_fetched_again(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 50))
        await world.compact()
        await assert_get(world, world.state)
        await world.worker.shards.close()
        records = _the_only(tmp_path, "worker/*/records.arrow")
        _flip(records)
        world.worker.cache._held[records.parent.name].verified = False  # as after a restart
        await assert_get(world, world.state)


async def test_a_segment_damaged_in_the_bucket_is_reported_and_never_served(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 50))
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        _flip(records)
        loader = world.worker.loader
        load, loads = loader.load, 0

        async def counted(*args: object) -> object:
            nonlocal loads
            loads += 1
            return await load(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(loader, "load", counted)
        for _ in range(3):
            with pytest.raises(Corrupt, match="checksum"):
                await _count(world)
        assert loads == 1  # nobody fetches it again for every read
        _flip(records)
        _shard(world)._corrupt = None  # as after a while
        assert await _count(world) == 50


async def test_the_old_view_goes_on_serving_while_the_new_manifest_cannot_be_loaded(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 50))
        await _count(world)
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        _flip(records)
        assert await _count(world) == 50
        loading = _shard(world)._loading
        assert loading is not None
        with pytest.raises(Corrupt):
            await loading
        await world.write(_adds(50, 1))
        assert await _count(world) == 51
        _flip(records)
        _shard(world)._load_after_s = 0.0
        await world.settled()
        await assert_get(world, world.state)


async def test_a_bucket_that_is_away_makes_a_cold_shard_unavailable_and_a_later_read_succeeds(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        await world.compact()

        async def away(*_args: object) -> bytes:
            raise Unavailable("object storage is away")

        with monkeypatch.context() as patched:
            patched.setattr(world.objects, "get", away)
            with pytest.raises(Unavailable):
                await _count(world)
        assert await _count(world) == 5


async def test_a_missing_object_is_corruption(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        await asyncio.to_thread(records.unlink)
        with pytest.raises(PolychromeError) as caught:
            await _count(world)
        assert type(caught.value) is Corrupt
        assert not isinstance(caught.value, ObjectNotFound)


async def test_segments_that_a_new_manifest_keeps_are_not_opened_twice_and_dropped_ones_are_let_go(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 3000))
        await world.compact()
        await assert_get(world, world.state)
        (large,) = _open_segments(world)
        await world.write(_adds(3000, 5))
        await world.compact()
        await world.settled()
        assert large in _open_segments(world)
        held = world.worker.cache._held
        assert [entry.users for entry in held.values()] == [1, 1]
        await world.worker.shards.close()
        async with asyncio.timeout(10):
            while any(entry.users for entry in held.values()):  # noqa: ASYNC110 (a thread lets go, and tells nobody)
                await asyncio.sleep(0.001)


def _open_segments(world: World) -> set[int]:
    view = _shard(world)._view
    return set() if view is None else {id(segment) for segment in view.base.stack.segments}


async def test_reads_as_of_a_position_in_hand_do_not_ask_the_log(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        position = await world.write(_adds(0, 3))
        await _count(world)
        world.worker.log.reads = 0
        answer = await world.worker.get(get_request(world, as_of=position))
        assert (answer.position, world.worker.log.reads) == (position, 0)


def _the_only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("place", ["shared.segment.cache.verify", "queryworker.segments.open_segment"])
async def test_a_worker_whose_disk_or_file_table_is_full_is_unavailable_so_that_another_one_is_asked(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(_adds(0, 5))
        await world.compact()
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            with pytest.raises(Unavailable):
                await _count(world)
        assert await _count(world) == 5
