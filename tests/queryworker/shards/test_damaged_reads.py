"""Damage that a read meets in a thread, after its view was loaded without fault: named, told, and got rid of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queryworker.query import answers
from shared.catalog.damage import DamageKind
from shared.errors import Corrupt, Damaged
from shared.records.selection import Selection
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.segment.format import HEADER_BYTES, IDS
from tests.queryworker.shards.test_mending import manifest_of
from tests.queryworker.truth import assert_get
from tests.queryworker.world import World, adds, open_world
from tests.redis_server import RedisServer

ROWS = 60


def rot_ids(world: World, segment: str) -> None:
    """Makes all rows in the index of ids on the worker's disk, which is mapped, rows that there are not."""
    with (world.directory / "worker" / segment / IDS).open("r+b") as file:
        file.seek(HEADER_BYTES + 8 * ROWS)
        file.write(b"\xff" * 4 * ROWS)


async def get(world: World, count: int, shard: int = 0) -> list[str]:
    selection = Selection(ids=[f"r{number}" for number in range(count)])
    return list((await world.worker.get(messages.GetRequest(world.shard(shard), selection))).columns.ids)


@pytest.mark.parametrize("count", [3, ROWS])
async def test_a_file_that_rots_on_the_disk_is_named_and_fetched_again(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, count: int
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, ROWS))
        await world.compact()
        await world.load_newest_manifests()
        assert len(await get(world, count)) == count
        [ref] = (await manifest_of(world)).segments
        await asyncio.to_thread(rot_ids, world, ref.info.id)
        with pytest.raises(Damaged, match=ref.info.key(IDS)):
            await get(world, count)
        [damage] = await world.reported()
        assert (damage.name, damage.kind, damage.shard) == (ref.info.key(IDS), DamageKind.DERIVED, 0)
        assert "worker's disk" in damage.what
        assert len(await get(world, count)) == count
        assert await world.reported() == [], "it was fetched again, and is whole"
        await assert_get(world, world.state)


async def test_a_file_that_rots_and_is_damaged_in_the_bucket_too_is_made_again(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, ROWS))
        await world.compact()
        await world.load_newest_manifests()
        [ref] = (await manifest_of(world)).segments
        await asyncio.to_thread((tmp_path / "bucket" / ref.info.key(IDS)).unlink)
        await asyncio.to_thread(rot_ids, world, ref.info.id)
        with pytest.raises(Damaged):
            await get(world, ROWS)
        assert len(await get(world, ROWS)) == ROWS
        [damage] = await world.reported()
        assert (damage.name, damage.what) == (ref.info.key(IDS), "is missing")


async def test_damage_that_a_thread_meets_is_reported_told_and_leaves_other_shards_alone(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path, shards=2) as world:
        await world.write(adds(0, ROWS))
        await world.compact()
        await world.load_newest_manifests()
        find, bad = answers.get_answer, f"{world.collection}/0/segments/x/records.arrow"

        def damaged(context: answers.ReadContext, request: messages.GetRequest) -> object:
            if request.shard.shard == 0:
                raise Corrupt("it fails its checksum", bad)
            return find(context, request)

        monkeypatch.setattr("queryworker.query.answers.get_answer", damaged)
        world.worker.methods = world.worker.api.methods()
        with pytest.raises(Damaged, match=f"shard 0 of collection {world.collection}, {bad}"):
            await get(world, ROWS)
        assert await get(world, ROWS, shard=1)
        [damage] = await world.reported()
        assert (damage.name, damage.kind, damage.what) == (bad, DamageKind.RECORDS, "it fails its checksum")


async def test_an_error_that_is_none_of_damage_is_told_as_it_is_and_reads_the_files_once(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, ROWS))
        await world.compact()
        await world.load_newest_manifests()
        examined: list[str] = []
        recheck = world.worker.cache.recheck

        async def counting(info: object) -> object:
            examined.append(info.id)  # type: ignore[attr-defined]
            return await recheck(info)  # type: ignore[arg-type]

        def defect(*_: object) -> object:
            raise ZeroDivisionError

        monkeypatch.setattr(world.worker.cache, "recheck", counting)
        monkeypatch.setattr("queryworker.query.answers.get_answer", defect)
        world.worker.methods = world.worker.api.methods()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await get(world, ROWS)
        assert len(examined) == 1
        assert await world.reported() == []
