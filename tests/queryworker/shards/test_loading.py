"""Whole whatever happens: reads while manifests move under the worker, and when they or their files are damaged or
away.
"""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from shared.catalog.damage import DamageKind
from shared.errors import Corrupt, Damaged, PolychromeError, Unavailable
from shared.objects.port import ObjectNotFound
from shared.records.model import Op
from shared.redis.keys import Keys
from tests.queryworker.truth import assert_get
from tests.queryworker.world import World, adds, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


async def test_readers_do_not_wait_while_a_new_manifest_is_loaded(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 20))
        await world.count()
        manifests, entered, release = world.worker.manifests, asyncio.Event(), asyncio.Event()
        load = manifests.load

        async def slow(*args: object) -> object:
            entered.set()
            await release.wait()
            return await load(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(manifests, "load", slow)
        await world.compact()
        assert await world.count() == 20  # notices the manifest
        await entered.wait()
        old = world.served.views.newest
        for _ in range(5):
            await world.write(
                [Operation(Op.DELETE, f"r{len(world.state) - 1}"), Operation(Op.UPDATE, "r0", document="x")]
            )
            await assert_get(world, world.state)
        assert world.served.views.newest is old
        release.set()
        await world.load_newest_manifests()
        assert world.served.views.newest is not old
        await assert_get(world, world.state)


async def test_a_worker_that_lags_behind_the_trimming_starts_again_from_the_newest_manifest(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 10))
        await assert_get(world, world.state)
        for first in (10, 20, 30):
            await world.write(adds(first, 10))
            await world.compact()
        await world.write([Operation(Op.DELETE, "r5"), *adds(40, 5)])
        await assert_get(world, world.state)


async def test_manifests_that_follow_each_other_faster_than_they_load_are_caught_up_with(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 10))
        await world.compact()
        load, rounds = world.worker.manifests.load, iter((10, 20, 30))

        async def overtaken(*args: object) -> object:
            base = await load(*args)  # type: ignore[arg-type]
            for first in rounds:
                await world.write(adds(first, 10))
                await world.compact()
                break
            return base

        monkeypatch.setattr(world.worker.manifests, "load", overtaken)
        await assert_get(world, world.state)


async def test_a_damaged_copy_of_a_segment_is_fetched_again(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 50))
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
        await world.write(adds(0, 50))
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        _flip(records)
        manifests = world.worker.manifests
        load, loads = manifests.load, 0

        async def counted(*args: object) -> object:
            nonlocal loads
            loads += 1
            return await load(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(manifests, "load", counted)
        for _ in range(3):
            with pytest.raises(Damaged, match=rf"^shard 0 of collection {world.collection}, .*/records\.arrow$"):
                await world.count()
        assert loads == 1  # nobody fetches it again for every read
        [reported] = await world.reported()
        assert (reported.name, reported.kind) == (
            records.relative_to(tmp_path / "bucket").as_posix(),
            DamageKind.RECORDS,
        )
        assert "checksum" in reported.what
        _flip(records)
        world.served.loader._corrupt = None  # as after a while
        assert await world.count() == 50
        assert await world.reported() == []


async def test_the_old_view_goes_on_serving_while_the_new_manifest_cannot_be_loaded(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 50))
        await world.count()
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        _flip(records)
        assert await world.count() == 50
        loading = world.served.loader.task
        assert loading is not None
        with pytest.raises(Corrupt):
            await loading
        assert [reported.kind for reported in await world.reported()] == [DamageKind.RECORDS]
        await world.write(adds(50, 1))
        assert await world.count() == 51
        _flip(records)
        world.served.loader._not_before_s = 0.0
        await world.load_newest_manifests()
        await assert_get(world, world.state)


async def test_a_bucket_that_is_away_makes_a_cold_shard_unavailable_and_a_later_read_succeeds(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.compact()

        async def away(*_args: object) -> bytes:
            raise Unavailable("object storage is away")

        with monkeypatch.context() as patched:
            patched.setattr(world.objects, "get", away)
            with pytest.raises(Unavailable):
                await world.count()
        assert await world.count() == 5


async def test_a_missing_object_is_corruption(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.compact()
        records = _the_only(tmp_path, "bucket/**/records.arrow")
        await asyncio.to_thread(records.unlink)
        with pytest.raises(PolychromeError) as caught:
            await world.count()
        assert type(caught.value) is Damaged
        assert not isinstance(caught.value, ObjectNotFound)


async def test_segments_that_a_new_manifest_keeps_are_not_opened_twice_and_dropped_ones_are_let_go(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 3000))
        await world.compact()
        await assert_get(world, world.state)
        (large,) = _open_segments(world)
        await world.write(adds(3000, 5))
        await world.compact()
        await world.load_newest_manifests()
        assert large in _open_segments(world)
        uses = world.worker.cache._uses
        assert list(uses.values()) == [1, 1]
        await world.worker.shards.close()
        async with asyncio.timeout(10):
            while uses:  # noqa: ASYNC110 (a thread lets go, and tells nobody)
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "place", ["shared.segment.cache.damaged_files", "queryworker.shards.segment_pool.open_segment"]
)
async def test_a_worker_whose_disk_or_file_table_is_full_is_unavailable_so_that_another_one_is_asked(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.compact()
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            with pytest.raises(Unavailable):
                await world.count()
        assert await world.count() == 5


def _open_segments(world: World) -> set[int]:
    view = world.served.views.newest
    return set() if view is None else {id(segment) for segment in view.manifest.segments.segments}


def _the_only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
