"""Which manifest counts when no pointer says so, and what is taken instead of a damaged one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.errors import Corrupt
from shared.manifest import newest as newest_module
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.newest import NewestManifest, newest_manifest
from shared.manifest.store import ManifestStore
from shared.objects.keys import manifest_key
from shared.objects.memory import MemoryStore
from tests.shared.manifest.making import after, created, manifest, newest


async def test_the_newest_manifest_is_found_without_a_pointer(objects: MemoryStore, store: ManifestStore) -> None:
    assert await newest_manifest(objects, "c", 3) == NewestManifest(None)
    first = manifest()
    second = after(first)
    await store.create(first)
    await store.create(second)
    assert await newest_manifest(objects, "c", 3) == NewestManifest((second, second.pointer()))
    assert await newest_manifest(objects, "c", 30) == NewestManifest(None)


async def test_a_manifest_of_an_earlier_epoch_is_not_the_newest_whatever_its_version(
    objects: MemoryStore, store: ManifestStore
) -> None:
    """Its compactor slept through a restoration, and took a version that was still free."""
    first = await created(store, manifest())
    restored = await created(store, manifest(2, ParentRef(1, first.hash), covers=30, epoch=1))
    await store.create(manifest(3, ParentRef(1, first.hash), covers=90))
    assert await newest(objects) == restored
    later = await created(store, manifest(5, ParentRef(2, restored.hash), covers=40, epoch=1))
    await store.create(manifest(6, ParentRef(1, first.hash), covers=95))
    assert await newest(objects) == later


async def test_manifests_of_epochs_before_the_one_that_is_asked_for_do_not_count(
    objects: MemoryStore, store: ManifestStore
) -> None:
    first = await created(store, manifest())
    await store.create(manifest(2, ParentRef(1, first.hash)))
    assert (await newest_manifest(objects, "c", 3, epoch_min=1)).found is None
    third = manifest(3, ParentRef(1, first.hash), covers=15, epoch=1)
    await store.create(third)
    assert (await newest_manifest(objects, "c", 3, epoch_min=1)).found == (third, third.pointer())


async def test_a_manifest_that_was_given_up_by_mistake_is_the_newest_when_it_covers_more(
    objects: MemoryStore, store: ManifestStore
) -> None:
    """The compactor that gave it up lost the commit: its manifest lacks what the log was trimmed past."""
    first = await created(store, manifest())
    committed = await created(store, manifest(2, ParentRef(1, first.hash), covers=50))
    await store.create(manifest(3, ParentRef(1, first.hash), covers=40))
    assert await newest(objects) == committed
    fourth = await created(store, manifest(4, ParentRef(2, committed.hash), covers=60))
    assert await newest(objects) == fourth


async def _chain(store: ManifestStore, count: int, **changes: Any) -> list[Manifest]:
    found = [manifest(**changes)]
    while len(found) < count:
        found.append(after(found[-1], **changes))
    for each in found:
        await store.create(each)
    return found


async def test_instead_of_a_damaged_manifest_the_one_before_it_is_taken(
    objects: MemoryStore, store: ManifestStore
) -> None:
    chain = await _chain(store, 4)
    for damaged in (chain[3], chain[2]):
        data = bytearray(damaged.encode())
        data[100] ^= 4
        await objects.put(damaged.key, bytes(data))
    found = await newest_manifest(objects, "c", 3)
    assert found.found == (chain[1], chain[1].pointer())
    assert sorted(found.passed_over) == [manifest_key("c", 3, 3), manifest_key("c", 3, 4)]
    assert found.versions_passed == 3


async def test_a_shard_whose_manifests_are_all_damaged_has_none(objects: MemoryStore, store: ManifestStore) -> None:
    for each in await _chain(store, 2):
        await objects.put(each.key, b"{}")
    found = await newest_manifest(objects, "c", 3)
    assert found.found is None
    assert len(found.passed_over) == 2
    assert found.versions_passed == 2


async def test_a_manifest_without_a_checksum_has_to_prove(
    objects: MemoryStore, store: ManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = await _chain(store, 3, format=1)
    proven: list[int] = []

    async def verify(_: object, each: Manifest) -> None:
        proven.append(each.version)
        if each.version == 3:
            raise Corrupt("it does not prove", each.key)

    monkeypatch.setattr(newest_module, "verify_digest", verify)
    found = await newest_manifest(objects, "c", 3)
    assert found.found is not None
    assert (found.found[0].version, proven) == (2, [3, 2])
    assert found.passed_over == {chain[2].key: "it does not prove"}
    await store.create(manifest(4, ParentRef(3, chain[2].pointer().hash)))
    proven.clear()
    assert (await newest(objects)).version == 4
    assert proven == [], "a checksum is enough"


async def test_damaged_records_do_not_make_an_older_manifest_better(
    objects: MemoryStore, store: ManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _chain(store, 2, format=1)

    async def verify(_: object, each: Manifest) -> None:
        raise Corrupt("another checksum", "c/3/segments/s/records.arrow")

    monkeypatch.setattr(newest_module, "verify_digest", verify)
    found = await newest_manifest(objects, "c", 3)
    assert found.found is not None
    assert found.found[0].version == 2
    assert found.passed_over == {}
    assert found.damaged == {"c/3/segments/s/records.arrow": "another checksum"}


def test_manifests_of_format_1_do_not_prove_themselves() -> None:
    assert manifest().proves_itself
    assert not msgspec.structs.replace(manifest(), format=1).proves_itself
