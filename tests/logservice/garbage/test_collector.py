"""What the collector deletes, and above all what it does not."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest
from pyroaring import BitMap

from logservice.garbage.collector import UNLISTED, Collected, GarbageCollector
from logservice.garbage.plan import CatalogView, Periods
from shared.errors import Corrupt, Unavailable
from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef, SegmentRef
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.keys import condemned_key, segment_path
from shared.objects.memory import MemoryStore
from shared.segment.format import FileInfo, SegmentInfo
from shared.vectors.space import Space

GRACE_S = 100.0
RETENTION_S = 1000.0


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class World:
    """A bucket with a clock, and shards that publish."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.objects = MemoryStore(self.clock.now)
        self.manifests = ManifestStore(self.objects)
        self.garbage = GarbageCollector(self.objects, self.clock, Periods(GRACE_S, RETENTION_S))
        self.pointers: dict[tuple[str, int], Pointer | None] = {}
        self.segments: dict[str, SegmentInfo] = {}
        self.graves: dict[str, float] = {}
        self.checks_until_restored: int | None = None

    def collection(self) -> str:
        collection = str(uuid.uuid4())
        self.pointers[collection, 0] = None
        return collection

    async def upload(self, collection: str, name: str) -> SegmentInfo:
        path = segment_path(collection, 0, name)
        await self.objects.put(f"{path}/records.arrow", b"x" * 10)
        await self.objects.put(f"{path}/ids.index", b"x")
        files = [FileInfo("records.arrow", 10, ""), FileInfo("ids.index", 1, "")]
        info = SegmentInfo(name, path, 1, 2, Space.L2, False, files, "a", "b")
        self.segments[name] = info
        return info

    async def create(self, collection: str, *names: str) -> Pointer | None:
        """A manifest that names these segments, new ones uploaded; not yet pointed to."""
        for name in names:
            if name not in self.segments:
                await self.upload(collection, name)
        before = self.pointers.get((collection, 0))
        version = before.version + 1 if before else 1
        return await self.manifests.create(
            Manifest(
                collection=collection, shard=0, version=version,
                parent=ParentRef(before.version, before.hash) if before else None,
                covers=version, dimension=2, segments=[SegmentRef.of(self.segments[name], BitMap()) for name in names],
                rows=len(names), digest="0" * 32, written_by="test", created_s=0.0,
            )
        )  # fmt: skip

    async def publish(self, collection: str, *names: str) -> None:
        self.pointers[collection, 0] = await self.create(collection, *names)

    async def require_same_epoch(self) -> None:
        if self.checks_until_restored is not None:
            self.checks_until_restored -= 1
            if self.checks_until_restored < 0:
                raise Unavailable("restored")

    async def collect(self, *erasing: str) -> Collected:
        view = CatalogView(dict(self.pointers), dict(self.graves), erasing=frozenset(erasing))
        return await self.garbage.collect(view, self.require_same_epoch)

    async def collect_twice(self) -> Collected:
        """What the first round condemns the second deletes."""
        await self.collect()
        return await self.collect()

    def delete(self, collection: str) -> None:
        """By the catalog."""
        del self.pointers[collection, 0]
        self.graves[collection] = self.clock.time

    async def left(self, collection: str) -> tuple[list[int], list[str]]:
        """Versions and names of segments that stand in the bucket below the collection."""
        keys = [info.key async for info in self.objects.list(f"{collection}/")]
        versions = sorted(int(key.split("/")[-1][:20]) for key in keys if "/manifests/" in key)
        return versions, sorted({key.split("/")[3] for key in keys if "/segments/" in key})


@pytest.fixture
def world() -> World:
    return World()


async def test_the_committed_manifest_and_its_segments_stay_for_ever(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1", "s2")
    world.clock.time += 10 * RETENTION_S
    assert await world.collect() == Collected(0, 0, 0)
    assert await world.left(a) == ([1], ["s1", "s2"])


async def test_replaced_manifests_stay_for_the_retention_after_they_were_replaced(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    world.clock.time += 10 * RETENTION_S
    await world.publish(a, "s2")
    world.clock.time += RETENTION_S - 1
    await world.collect()
    assert await world.left(a) == ([1, 2], ["s1", "s2"])
    world.clock.time += 2
    collected = await world.collect()
    assert (collected.manifests, collected.others) == (1, 0)
    assert await world.left(a) == ([2], ["s1", "s2"])
    collected = await world.collect()
    assert (collected.manifests, collected.others, collected.bytes) == (0, 2, 11)
    assert await world.left(a) == ([2], ["s2"])


async def test_a_segment_stays_as_long_as_any_kept_manifest_names_it(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    await world.publish(a, "s1", "s2")
    await world.publish(a, "s1", "s3")
    world.clock.time += 2 * RETENTION_S
    await world.collect_twice()
    assert await world.left(a) == ([3], ["s1", "s3"])


async def test_files_of_a_compaction_under_way_are_younger_than_the_grace(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    await world.upload(a, "building")
    world.clock.time += GRACE_S - 1
    await world.collect()
    assert await world.left(a) == ([1], ["building", "s1"])
    await world.objects.put(f"{segment_path(a, 0, 'building')}/graph.hnsw", b"")
    world.clock.time += GRACE_S - 1
    await world.collect()
    assert await world.left(a) == ([1], ["building", "s1"])
    world.clock.time += 2
    await world.collect_twice()
    assert await world.left(a) == ([1], ["s1"])


async def test_a_manifest_that_waits_to_be_completed_is_kept_with_its_segments(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    await world.create(a, "s1", "s2")
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    assert await world.left(a) == ([1, 2], ["s1", "s2"])


async def test_a_first_manifest_that_waits_to_be_completed_is_kept(world: World) -> None:
    a = world.collection()
    await world.create(a, "s1")
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    assert await world.left(a) == ([1], ["s1"])


async def test_a_dead_collection_goes_after_the_grace_and_no_other_does(world: World) -> None:
    a, b = world.collection(), world.collection()
    await world.publish(a, "s1")
    await world.publish(b, "s2")
    world.clock.time += 10 * RETENTION_S
    world.delete(a)
    await world.collect()
    assert await world.left(a) == ([1], ["s1"])
    world.clock.time += GRACE_S - 1
    await world.collect()
    assert await world.left(a) == ([1], ["s1"])
    world.clock.time += 2
    assert (await world.collect()).forgotten == []
    assert await world.left(a) == ([], [])
    assert await world.left(b) == ([1], ["s2"])
    assert (await world.collect()).forgotten == [a]


async def test_a_collection_that_the_catalog_has_forgotten_is_reported_and_kept(world: World) -> None:
    a, b = world.collection(), world.collection()
    await world.publish(a, "s1")
    await world.publish(b, "s2")
    pointer = world.pointers.pop((a, 0))
    for _ in range(3):
        await world.collect()
        world.clock.time += 10 * RETENTION_S
    assert await world.left(a) == ([1], ["s1"])
    assert UNLISTED._value.get() == 1
    world.pointers[a, 0] = pointer
    await world.collect()
    assert UNLISTED._value.get() == 0


async def test_a_collection_that_the_catalog_has_is_not_dead_whatever_was_buried(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    world.graves[a] = 0.0
    world.clock.time += 10 * RETENTION_S
    assert await world.collect_twice() == Collected(0, 0, 0)


async def test_a_dead_collection_that_is_still_written_to_waits(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    world.delete(a)
    await world.collect()
    world.clock.time += GRACE_S - 1
    await world.upload(a, "late")
    world.clock.time += 2
    await world.collect()
    assert await world.left(a) == ([1], ["late", "s1"])


async def test_a_segment_that_another_collection_names_outlives_its_own_collection(world: World) -> None:
    parent, fork = world.collection(), world.collection()
    await world.publish(parent, "s1", "s2")
    await world.publish(fork, "s1", "s3")
    world.delete(parent)
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    assert await world.left(parent) == ([], ["s1"])
    assert await world.left(fork) == ([1], ["s3"])


async def test_a_segment_that_a_fork_names_outlives_the_manifests_of_its_parent(world: World) -> None:
    parent, fork = world.collection(), world.collection()
    await world.publish(parent, "s1")
    await world.publish(fork, "s1")
    await world.publish(parent, "s2")
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    assert await world.left(parent) == ([2], ["s1", "s2"])


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
async def test_a_shard_without_a_readable_manifest_keeps_everything_and_the_others_are_collected(
    world: World, damage: str
) -> None:
    a, b = world.collection(), world.collection()
    for one, names in ((a, ("s1", "s2")), (b, ("s3", "s4"))):
        await world.publish(one, names[0])
        await world.publish(one, names[1])
        await world.upload(one, f"{names[0]}-old")
    key = f"{a}/0/manifests/{2:020d}.json"
    await (world.objects.delete([key]) if damage == "missing" else world.objects.put(key, b"{}"))
    world.clock.time += 10 * RETENTION_S
    await world.collect_twice()
    assert await world.left(a) == ([1] if damage == "missing" else [1, 2], ["s1", "s1-old", "s2"])
    assert await world.left(b) == ([2], ["s4"])


async def test_what_is_named_after_it_was_condemned_is_spared(world: World) -> None:
    a = world.collection()
    await world.publish(a, "s1")
    late = await world.upload(a, "late")
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    with pytest.raises(Corrupt, match="condemned"):
        await verify_present(world.objects, late)
    await world.create(a, "s1", "late")
    await world.collect()
    await verify_present(world.objects, late)


async def test_the_mark_of_what_is_condemned_goes_after_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compactor must see the mark, or that a file is missing."""
    a = world.collection()
    await world.publish(a, "s1")
    await world.upload(a, "late")
    world.clock.time += 10 * RETENTION_S
    await world.collect()
    deleted: list[str] = []
    real = world.objects.delete

    async def noted(keys: Iterable[str]) -> None:
        keys = list(keys)
        deleted.extend(keys)
        await real(keys)

    monkeypatch.setattr(world.objects, "delete", noted)
    await world.collect()
    assert deleted[-1] == condemned_key(segment_path(a, 0, "late"))
    assert await world.left(a) == ([1], ["s1"])


async def test_objects_of_other_kinds_are_left_alone_and_old_probes_are_not(world: World) -> None:
    await world.objects.put("catalog/snapshot.json", b"")
    await world.objects.put("probes/abc", b"")
    world.clock.time += 10 * RETENTION_S
    await world.objects.put("probes/new", b"")
    await world.collect()
    assert [info.key async for info in world.objects.list("")] == ["catalog/snapshot.json", "probes/new"]


async def test_manifests_are_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    real = world.objects.get

    async def counted(key: str) -> bytes:
        reads.append(key)
        return await real(key)

    monkeypatch.setattr(world.objects, "get", counted)
    a = world.collection()
    await world.publish(a, "s1")
    await world.collect()
    await world.collect()
    assert len(reads) == 1


async def test_a_clock_that_is_ahead_of_the_bucket_deletes_nothing_early() -> None:
    """Ages are compared with the bucket's own time: clocks decide nothing."""
    world = World()
    collection = world.collection()
    await world.publish(collection, "old")
    await world.publish(collection, "new")
    await world.upload(collection, "in-the-making")
    world.garbage = GarbageCollector(world.objects, Ahead(world.clock), Periods(GRACE_S, RETENTION_S))
    assert await world.collect() == Collected(0, 0, 0)


class Ahead(Clock):
    """A day ahead of another clock."""

    def __init__(self, other: Clock) -> None:
        self._other = other

    def now(self) -> float:
        return self._other.now() + 86400.0


async def test_of_what_is_being_erased_only_what_is_named_and_what_is_young_stays(world: World) -> None:
    erased, other = world.collection(), world.collection()
    for collection in (erased, other):
        await world.publish(collection, f"old-{collection}")
        await world.publish(collection, f"new-{collection}")
    assert (await world.collect(erased, other)).manifests == 0
    world.clock.time += 61.0
    young = await world.upload(erased, "young")
    assert (await world.collect(erased)).manifests == 1
    assert (await world.collect(erased)).others == 2, "the files of the old segment, which was condemned before"
    there = {info.key async for info in world.objects.list("")}
    left = {info.path for info in world.segments.values() if info.key("records.arrow") in there}
    assert left == {info.path for info in world.segments.values()} - {world.segments[f"old-{erased}"].path}
    assert young.path in left


async def test_a_deleted_collection_that_is_erased_goes_before_the_grace(world: World) -> None:
    collection = world.collection()
    await world.publish(collection, "a")
    world.delete(collection)
    world.clock.time += 61.0
    assert (await world.collect()).others == 0
    assert (await world.collect(collection)).others > 0
    assert [info.key async for info in world.objects.list(f"{collection}/")] == []
