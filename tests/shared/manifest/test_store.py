from __future__ import annotations

import pytest

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import hash_of
from shared.manifest.store import ManifestStore
from shared.objects.keys import manifest_key
from shared.objects.memory import MemoryStore
from tests.shared.manifest.making import created, manifest


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
