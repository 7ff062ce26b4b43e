from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import ParentRef, SegmentRef, hash_of
from shared.manifest.settle import complete, settle
from shared.manifest.store import ManifestStore
from shared.objects.keys import manifest_key
from shared.objects.memory import MemoryStore
from tests.shared.manifest.making import after, created, manifest, newest, proving_manifest, segment


class Pointers:
    """`Log.commit` in memory."""

    def __init__(self, current: Pointer | None = None) -> None:
        self.current = current
        self.calls = 0

    async def commit(self, collection: str, shard: int, expected: Pointer | None, new: Pointer, epoch: int) -> bool:
        self.calls += 1
        if self.current == expected:
            self.current = new
        return self.current == new


async def test_an_unfinished_manifest_is_completed(objects: MemoryStore, store: ManifestStore, tmp_path: Path) -> None:
    made = await proving_manifest(objects, tmp_path, rows=[9, 5], dead=[[2], []])
    first = await created(store, made)
    pointers = Pointers()
    assert await complete(objects, pointers.commit, "c", 3, None, 1, 0) == first
    assert pointers.current == first
    second = await created(store, after(made, segments=made.segments, digest=made.digest))
    assert await complete(objects, pointers.commit, "c", 3, first, 2, 0) == second
    assert pointers.current == second


async def test_a_manifest_that_does_not_prove_is_not_completed(
    objects: MemoryStore, store: ManifestStore, tmp_path: Path
) -> None:
    made = await proving_manifest(objects, tmp_path, rows=[9], dead=[[2]])
    await store.create(msgspec.structs.replace(made, segments=[SegmentRef.of(made.segments[0].info, BitMap([3]))]))
    pointers = Pointers()
    with pytest.raises(Corrupt, match="prove"):
        await complete(objects, pointers.commit, "c", 3, None, 1, 0)
    assert pointers.calls == 0


async def test_there_is_nothing_to_complete_without_a_next_manifest(objects: MemoryStore, store: ManifestStore) -> None:
    pointers = Pointers()
    assert await complete(objects, pointers.commit, "c", 3, None, 1, 0) is None
    first = await created(store, manifest())
    assert await complete(objects, pointers.commit, "c", 3, first, 2, 0) is None
    assert pointers.calls == 0


async def test_old_knowledge_completes_nothing(objects: MemoryStore, store: ManifestStore) -> None:
    first = await created(store, manifest())
    second = await created(store, after(manifest()))
    pointers = Pointers(second)
    assert await complete(objects, pointers.commit, "c", 3, None, 1, 0) is None
    assert (
        await complete(objects, pointers.commit, "c", 3, first, 2, 0) == second
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
        await complete(objects, pointers.commit, "c", 3, None, 1, 0)
    assert pointers.calls == 0


async def test_a_manifest_that_continues_another_history_is_not_completed(
    objects: MemoryStore, store: ManifestStore
) -> None:
    first = await created(store, manifest())
    await store.create(manifest(2, ParentRef(1, hash_of(b"another"))))
    with pytest.raises(Corrupt, match="continue"):
        await complete(objects, Pointers(first).commit, "c", 3, first, 2, 0)


async def test_a_manifest_that_covers_less_is_not_completed(objects: MemoryStore, store: ManifestStore) -> None:
    first = await created(store, manifest())
    await store.create(after(manifest(), covers=9))
    with pytest.raises(Corrupt, match="covers less"):
        await complete(objects, Pointers(first).commit, "c", 3, first, 2, 0)


async def test_what_must_not_be_completed_is_given_up_and_the_next_version_taken(
    objects: MemoryStore, store: ManifestStore
) -> None:
    first = await created(store, manifest())
    pointers = Pointers(first)
    assert await settle(objects, pointers.commit, "c", 3, first, 0) == 2
    await objects.put(manifest_key("c", 3, 2), b"not a manifest")
    await store.create(manifest(3, ParentRef(1, first.hash), segments=[segment()], covers=40))
    await store.create(manifest(4, ParentRef(1, hash_of(b"another"))))
    assert await settle(objects, pointers.commit, "c", 3, first, 0) == 5
    assert pointers.calls == 0
    fifth = await created(store, manifest(5, ParentRef(1, first.hash), covers=30))
    assert await settle(objects, pointers.commit, "c", 3, first, 0) == fifth
    assert pointers.current == fifth
    assert await newest(objects) == fifth


async def test_the_first_version_can_be_given_up_too(objects: MemoryStore, store: ManifestStore) -> None:
    await objects.put(manifest_key("c", 3, 1), b"")
    pointers = Pointers()
    assert await settle(objects, pointers.commit, "c", 3, None, 0) == 2
    second = await created(store, manifest(2))
    assert await settle(objects, pointers.commit, "c", 3, None, 0) == second


async def test_a_manifest_of_another_epoch_is_given_up(objects: MemoryStore, store: ManifestStore) -> None:
    """It was begun before a restoration, and may hold what that reported as lost."""
    first = await created(store, manifest())
    await created(store, after(manifest()))
    pointers = Pointers(first)
    with pytest.raises(Corrupt, match="epoch"):
        await complete(objects, pointers.commit, "c", 3, first, 2, 1)
    assert await settle(objects, pointers.commit, "c", 3, first, 1) == 3
    third = await created(store, manifest(3, ParentRef(1, first.hash), epoch=1))
    assert await settle(objects, pointers.commit, "c", 3, first, 1) == third
