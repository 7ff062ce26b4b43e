"""Which manifests of the past count."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.history.past_manifests import PastManifests
from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.store import ManifestStore
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore

CID = "0f0e0d0c-0b0a-4908-8706-050403020100"


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_directory(tmp_path) as store:
        yield store


@dataclasses.dataclass
class Shard:
    """The manifests of a shard, by version."""

    objects: ObjectStore
    pointers: dict[int, Pointer] = dataclasses.field(default_factory=dict)

    async def publish(self, version: int, covers: int, parent: int | None, epoch: int = 0) -> Pointer:
        continued = None if parent is None else ParentRef(parent, self.pointers[parent].hash)
        manifest = Manifest(
            collection=CID, shard=0, version=version, parent=continued, covers=covers, dimension=2, segments=[],
            rows=0, digest="0" * 32, written_by=f"test {version}", created_s=0.0, epoch=epoch,
        )  # fmt: skip
        pointer = await ManifestStore(self.objects).create(manifest)
        assert pointer is not None
        self.pointers[version] = pointer
        return pointer

    async def at(self, position: int, newest: int) -> int | None:
        """The version that a read as of the position begins with."""
        found = await PastManifests(self.objects).at(CID, 0, position, self.pointers[newest])
        return None if found is None else found.manifest.version


async def test_the_newest_manifest_that_covers_no_more_than_the_position_is_found(objects: ObjectStore) -> None:
    shard = Shard(objects)
    for version in range(1, 20):
        await shard.publish(version, version * 10, version - 1 or None)
    assert [await shard.at(position, 19) for position in (9, 10, 11, 19, 20, 185, 190, 500)] == [
        None, 1, 1, 1, 2, 18, 19, 19,
    ]  # fmt: skip
    assert await shard.at(500, 7) == 7


async def test_a_manifest_that_was_given_up_is_none_of_the_past(objects: ObjectStore) -> None:
    shard = Shard(objects)
    await shard.publish(1, 10, None)
    await shard.publish(2, 15, 1)
    await shard.publish(3, 20, 1)
    await shard.publish(4, 30, 3)
    assert [await shard.at(position, 4) for position in (14, 15, 19, 20, 30)] == [1, 1, 1, 3, 4]


async def test_what_a_restoration_went_back_behind_is_none_of_the_past(objects: ObjectStore) -> None:
    """Version 3 and 4 were committed and are lost; the collection went on from version 2."""
    shard = Shard(objects)
    for version in range(1, 5):
        await shard.publish(version, version * 10, version - 1 or None)
    await shard.publish(5, 1050, 2, epoch=1)
    await shard.publish(6, 1060, 5, epoch=1)
    assert [await shard.at(position, 6) for position in (20, 35, 45, 1000, 1050, 1060)] == [2, 2, 2, 2, 5, 6]
    await shard.publish(7, 2000, 5, epoch=2)
    assert [await shard.at(position, 7) for position in (45, 1055, 1065, 2000)] == [2, 5, 5, 7]


async def test_manifests_that_are_gone_are_passed_over(objects: ObjectStore) -> None:
    shard = Shard(objects)
    for version in range(1, 6):
        await shard.publish(version, version * 10, version - 1 or None)
    keys = [info.key async for info in objects.list(f"{CID}/0/manifests/")]
    await objects.delete(keys[:2])
    assert [await shard.at(position, 5) for position in (25, 30, 45)] == [None, 3, 4]
