"""A restoration takes what came before a damaged manifest, names it, and restores everything else all the same."""

from __future__ import annotations

import msgspec
import pytest
from pyroaring import BitMap
from redis.asyncio import Redis

from logservice.restoring.proving import Prover
from shared import limits
from shared.catalog import Collection
from shared.log.state import Pointer
from shared.manifest.model import SegmentRef
from shared.manifest.roots import RootStore
from shared.manifest.store import ManifestStore
from shared.objects.keys import manifest_key
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.logservice.restoring.test_epoch import World, world
from tests.shared.log.appending import append, make_collection
from tests.shared.manifest.making import proving_manifest

__all__ = ["world"]


async def _compacted(world: World, name: str, times: int) -> tuple[Collection, list[Pointer]]:
    database = await world.catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    made = await make_collection(world.catalog, database, name)
    pointers = []
    for number in range(times):
        await append(world.log, made, [str(number)])
        pointers.append(await compact(world.log, world.objects, made.id))
    await world.snapshot()
    return made, pointers


async def _flip(objects: ObjectStore, key: str) -> None:
    data = bytearray(await objects.get(key))
    data[len(data) // 2] ^= 1
    await objects.put(key, bytes(data))


async def _pointer(world: World, collection: Collection) -> Pointer | None:
    return (await world.log.read(collection.id, 0)).state.pointer


async def test_a_damaged_manifest_costs_its_collection_its_range_and_the_others_nothing(world: World) -> None:
    hit, pointers = await _compacted(world, "hit", 3)
    spared, spared_pointers = await _compacted(world, "spared", 2)
    key = manifest_key(hit.id, 0, 3)
    await _flip(world.objects, key)
    before = (await world.log.read(hit.id, 0)).state.head
    await world.restore()
    assert await _pointer(world, hit) == pointers[1]
    assert await _pointer(world, spared) == spared_pointers[-1]
    report = await world.images.read_report()
    assert report is not None
    [missing] = [each for each in report["missing"] if each["collection"] == hit.id]
    assert missing["covered"] == [pointers[1].covers]
    assert list(missing["damaged"]) == [key]
    head = (await world.log.read(hit.id, 0)).state.head
    assert head == missing["head"] >= before + limits.BACKLOG_OPS_CEILING
    assert [damage.name for damage in await world.catalog.damages.all()] == [key]


async def test_roots_that_are_all_damaged_cost_their_collection_no_more_than_the_one_moment(world: World) -> None:
    hit, pointers = await _compacted(world, "hit", 2)
    spared, spared_pointers = await _compacted(world, "spared", 2)
    await world.restore()  # writes roots
    [key] = await RootStore(world.objects).keys(hit.id)
    await _flip(world.objects, key)
    await world.restore()
    assert await _pointer(world, hit) == pointers[1]
    assert await _pointer(world, spared) == spared_pointers[1]
    report = await world.images.read_report()
    assert report is not None
    [missing] = [each for each in report["missing"] if each["collection"] == hit.id]
    assert key in missing["damaged"]


async def test_positions_that_only_damaged_manifests_cover_are_not_handed_out_again(world: World) -> None:
    """Each of them may have been committed when its shard's log was full."""
    hit, pointers = await _compacted(world, "hit", 4)
    for version in (2, 3, 4):
        await _flip(world.objects, manifest_key(hit.id, 0, version))
    await world.restore()
    head = (await world.log.read(hit.id, 0)).state.head
    assert head >= pointers[0].covers + 4 * limits.BACKLOG_OPS_CEILING


async def test_a_compaction_goes_on_behind_a_damaged_manifest(world: World) -> None:
    hit, pointers = await _compacted(world, "hit", 2)
    await _flip(world.objects, manifest_key(hit.id, 0, 2))
    await world.restore()
    assert await _pointer(world, hit) == pointers[0]
    await world.restore()
    assert await _pointer(world, hit) == pointers[0]


async def test_a_redis_that_went_back_behind_a_damaged_manifest_is_brought_forward(world: World) -> None:
    hit, pointers = await _compacted(world, "hit", 3)
    await _flip(world.objects, manifest_key(hit.id, 0, 3))
    await world.redis.hset(world.keys.state(hit.id), "m:0", pointers[0].encode())
    await world.redis.set(world.keys.commits, 1)
    await world.catalog.mark.mark_verified("an earlier run", (await world.cluster()).epoch)
    await world.reconciler().run()
    assert await _pointer(world, hit) == pointers[1]
    report = await world.images.read_report()
    assert report is not None
    [missing] = [each for each in report["missing"] if each["collection"] == hit.id]
    assert list(missing["damaged"]) == [manifest_key(hit.id, 0, 3)]
    assert missing["head"] >= pointers[1].covers + 2 * limits.BACKLOG_OPS_CEILING


async def test_what_a_restoration_took_up_proves_afterwards(world: World) -> None:
    compacted, _ = await _compacted(world, "compacted", 2)
    await world.restore()
    assert await world.catalog.unproven.some() == [manifest_key(compacted.id, 0, 2)]
    await Prover(world.catalog.unproven, world.catalog.damages, world.objects, SystemClock(), "test").step()
    assert await world.catalog.unproven.count() == 0
    assert await world.catalog.damages.all() == []


async def test_what_does_not_prove_afterwards_is_named(
    world: World, redis: Redis, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As after a defect of the process that wrote it: its checksum is right."""
    objects = MemoryStore(lambda: 0.0)
    made = await proving_manifest(objects, tmp_path_factory.mktemp("segments"), rows=[9], dead=[[2]])
    wrong = msgspec.structs.replace(made, segments=[SegmentRef.of(made.segments[0].info, BitMap([3]))])
    assert await ManifestStore(objects).create(wrong)
    await world.catalog.unproven.add([wrong.key, manifest_key("c", 9, 1), "not a manifest"])
    await Prover(world.catalog.unproven, world.catalog.damages, objects, SystemClock(), "test").step()
    assert [damage.name for damage in await world.catalog.damages.all()] == [wrong.key]
    assert await world.catalog.unproven.count() == 0
