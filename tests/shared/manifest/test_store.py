from __future__ import annotations

import pytest

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import ParentRef, hash_of, manifest_key
from shared.manifest.store import ManifestStore
from shared.objects.memory import MemoryStore
from tests.shared.manifest.making import after, created, manifest, newest


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


async def test_a_manifest_of_an_earlier_epoch_is_not_the_newest_whatever_its_version(store: ManifestStore) -> None:
    """Its compactor slept through a restoration, and took a version that was still free."""
    first = await created(store, manifest())
    restored = await created(store, manifest(2, ParentRef(1, first.hash), covers=30, epoch=1))
    await store.create(manifest(3, ParentRef(1, first.hash), covers=90))
    assert await newest(store) == restored
    later = await created(store, manifest(5, ParentRef(2, restored.hash), covers=40, epoch=1))
    await store.create(manifest(6, ParentRef(1, first.hash), covers=95))
    assert await newest(store) == later


async def test_a_manifest_that_was_given_up_by_mistake_is_the_newest_when_it_covers_more(
    store: ManifestStore,
) -> None:
    """The compactor that gave it up lost the commit: its manifest lacks what the log was trimmed past."""
    first = await created(store, manifest())
    committed = await created(store, manifest(2, ParentRef(1, first.hash), covers=50))
    await store.create(manifest(3, ParentRef(1, first.hash), covers=40))
    assert await newest(store) == committed
    fourth = await created(store, manifest(4, ParentRef(2, committed.hash), covers=60))
    assert await newest(store) == fourth
