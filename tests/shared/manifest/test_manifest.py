from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import (
    Manifest,
    ParentRef,
    SegmentRef,
    decode,
    hash_of,
    manifest_key,
    parse_key,
    segment_path,
)
from shared.manifest.settle import complete, settle
from shared.manifest.store import ManifestStore
from shared.objects.memory import MemoryStore
from shared.segment.format import FileInfo, SegmentInfo
from shared.vectors.space import Space


def manifest(
    version: int = 1,
    parent: ParentRef | None = None,
    segments: Sequence[SegmentRef] = (),
    covers: int | None = None,
    **changes: Any,
) -> Manifest:
    return Manifest(
        **{
            "collection": "c", "shard": 3, "version": version, "parent": parent, "covers": covers or 10 * version,
            "dimension": 2, "segments": list(segments), "rows": sum(ref.live for ref in segments), "digest": "0" * 32,
            "written_by": "test", "created_s": 1.5, **changes,
        }
    )  # fmt: skip


def segment(name: str = "s1", rows: int = 10, dead: Sequence[int] = ()) -> SegmentRef:
    info = SegmentInfo(
        name, segment_path("c", 3, name), rows, 2, Space.COSINE, False, [FileInfo("records.arrow", 4, "ab")], "a", "z"
    )
    return SegmentRef.of(info, BitMap(dead))


def after(found: Manifest, **changes: Any) -> Manifest:
    pointer = found.pointer()
    return manifest(found.version + 1, ParentRef(pointer.version, pointer.hash), **changes)


class Pointers:
    """`Log.commit` in memory."""

    def __init__(self, current: Pointer | None = None) -> None:
        self.current = current
        self.calls = 0

    async def commit(self, collection: str, shard: int, expected: Pointer | None, new: Pointer) -> bool:
        self.calls += 1
        if self.current == expected:
            self.current = new
        return self.current == new


@pytest.fixture
def objects() -> MemoryStore:
    return MemoryStore(lambda: 0.0)


@pytest.fixture
def store(objects: MemoryStore) -> ManifestStore:
    return ManifestStore(objects)


def test_a_manifest_survives_its_bytes() -> None:
    written = manifest(segments=[segment(dead=[1, 9]), segment("s2")])
    assert decode(written.encode()) == written
    assert list(decode(written.encode()).segments[0].bitmap()) == [1, 9]
    assert written.rows == 18


def test_keys_sort_by_version_and_are_parsed_back() -> None:
    assert manifest_key("c", 3, 7) == "c/3/manifests/00000000000000000007.json"
    assert parse_key(manifest_key("c", 3, 7)) == ("c", 3, 7)
    assert manifest_key("c", 3, 9) < manifest_key("c", 3, 10)
    for key in ("c/3/manifests/7.json", "c/3/segments/s/records.arrow", "probes/x", manifest_key("c", 3, 7) + "x"):
        assert parse_key(key) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"\xff",
        manifest(format=2).encode(),
        manifest(3, ParentRef(3, "ab")).encode(),
        manifest(segments=[segment()], rows=9).encode(),
    ],
)
def test_bytes_that_are_no_manifest_are_corrupt(broken: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(broken)


@pytest.mark.parametrize(
    "ref",
    [
        msgspec.structs.replace(segment(), tombstones="%"),
        msgspec.structs.replace(segment(), tombstones="AAAA"),
        msgspec.structs.replace(segment(dead=[1]), dead=2),
        segment(rows=5, dead=[5]),
    ],
)
def test_tombstones_that_do_not_fit_are_corrupt(ref: SegmentRef) -> None:
    with pytest.raises(Corrupt):
        ref.bitmap()


async def test_a_version_is_created_once(store: ManifestStore) -> None:
    first = await created(store, manifest())
    assert first == manifest().pointer()
    assert await store.create(manifest(written_by="another")) is None
    assert await store.load("c", 3, first) == manifest()


async def test_only_the_manifest_that_the_pointer_names_is_loaded(objects: MemoryStore, store: ManifestStore) -> None:
    pointer = await created(store, manifest())
    with pytest.raises(Corrupt, match="not the one that was committed"):
        await store.load("c", 3, Pointer(1, hash_of(b"other"), 10))
    with pytest.raises(Corrupt, match="missing"):
        await store.load("c", 3, Pointer(2, pointer.hash, 10))
    await objects.put(manifest_key("c", 4, 1), manifest().encode())
    with pytest.raises(Corrupt, match="holds"):
        await store.load("c", 4, pointer)


async def test_the_newest_manifest_is_found_without_a_pointer(store: ManifestStore) -> None:
    assert await store.newest("c", 3) is None
    first = manifest()
    second = after(first)
    await store.create(first)
    await store.create(second)
    assert await store.newest("c", 3) == (second, second.pointer())
    assert await store.newest("c", 30) is None


async def created(store: ManifestStore, new: Manifest) -> Pointer:
    """Of a manifest whose version was free."""
    pointer = await store.create(new)
    assert pointer is not None
    return pointer


async def newest(store: ManifestStore) -> Pointer:
    found = await store.newest("c", 3)
    assert found is not None
    return found[1]


async def put_files(objects: MemoryStore, ref: SegmentRef) -> None:
    for file in ref.info.files:
        await objects.put(f"{ref.info.path}/{file.name}", b"x" * file.bytes)


async def test_an_unfinished_manifest_is_completed(objects: MemoryStore, store: ManifestStore) -> None:
    ref = segment()
    await put_files(objects, ref)
    first = await created(store, manifest(segments=[ref]))
    pointers = Pointers()
    assert await complete(objects, pointers.commit, "c", 3, None, 1) == first
    assert pointers.current == first
    second = await created(store, after(manifest(segments=[ref])))
    assert await complete(objects, pointers.commit, "c", 3, first, 2) == second
    assert pointers.current == second


async def test_there_is_nothing_to_complete_without_a_next_manifest(objects: MemoryStore, store: ManifestStore) -> None:
    pointers = Pointers()
    assert await complete(objects, pointers.commit, "c", 3, None, 1) is None
    first = await created(store, manifest())
    assert await complete(objects, pointers.commit, "c", 3, first, 2) is None
    assert pointers.calls == 0


async def test_old_knowledge_completes_nothing(objects: MemoryStore, store: ManifestStore) -> None:
    first = await created(store, manifest())
    second = await created(store, after(manifest()))
    pointers = Pointers(second)
    assert await complete(objects, pointers.commit, "c", 3, None, 1) is None
    assert (
        await complete(objects, pointers.commit, "c", 3, first, 2) == second
    )  # it is committed already: the same commit
    assert pointers.current == second


@pytest.mark.parametrize("content", [None, b"xxx"])
async def test_a_manifest_whose_segment_is_missing_or_cut_is_not_completed(
    objects: MemoryStore, store: ManifestStore, content: bytes | None
) -> None:
    ref = segment()
    if content is not None:
        await objects.put(f"{ref.info.path}/records.arrow", content)
    await store.create(manifest(segments=[ref]))
    pointers = Pointers()
    with pytest.raises(Corrupt):
        await complete(objects, pointers.commit, "c", 3, None, 1)
    assert pointers.calls == 0


async def test_a_manifest_that_continues_another_history_is_not_completed(
    objects: MemoryStore, store: ManifestStore
) -> None:
    first = await created(store, manifest())
    await store.create(manifest(2, ParentRef(1, hash_of(b"another"))))
    with pytest.raises(Corrupt, match="continue"):
        await complete(objects, Pointers(first).commit, "c", 3, first, 2)


async def test_a_manifest_that_covers_less_is_not_completed(objects: MemoryStore, store: ManifestStore) -> None:
    first = await created(store, manifest())
    await store.create(after(manifest(), covers=9))
    with pytest.raises(Corrupt, match="covers less"):
        await complete(objects, Pointers(first).commit, "c", 3, first, 2)


async def test_what_must_not_be_completed_is_given_up_and_the_next_version_taken(
    objects: MemoryStore, store: ManifestStore
) -> None:
    first = await created(store, manifest())
    pointers = Pointers(first)
    assert await settle(objects, pointers.commit, "c", 3, first) == 2
    await objects.put(manifest_key("c", 3, 2), b"not a manifest")
    await store.create(manifest(3, ParentRef(1, first.hash), segments=[segment()], covers=40))
    await store.create(manifest(4, ParentRef(1, hash_of(b"another"))))
    assert await settle(objects, pointers.commit, "c", 3, first) == 5
    assert pointers.calls == 0
    fifth = await created(store, manifest(5, ParentRef(1, first.hash), covers=30))
    assert await settle(objects, pointers.commit, "c", 3, first) == fifth
    assert pointers.current == fifth
    assert await newest(store) == fifth


async def test_one_that_was_given_up_by_mistake_and_committed_is_the_newest_when_it_covers_more(
    objects: MemoryStore, store: ManifestStore
) -> None:
    """Whoever gave it up lost the commit; the bucket alone must not name the loser, which the log was trimmed past."""
    first = await created(store, manifest())
    committed = await created(store, manifest(2, ParentRef(1, first.hash), covers=50))
    await store.create(manifest(3, ParentRef(1, first.hash), covers=40))
    assert await newest(store) == committed
    fourth = await created(store, manifest(4, ParentRef(2, committed.hash), covers=60))
    assert await newest(store) == fourth


async def test_the_first_version_can_be_given_up_too(objects: MemoryStore, store: ManifestStore) -> None:
    await objects.put(manifest_key("c", 3, 1), b"")
    pointers = Pointers()
    assert await settle(objects, pointers.commit, "c", 3, None) == 2
    second = await created(store, manifest(2))
    assert await settle(objects, pointers.commit, "c", 3, None) == second
