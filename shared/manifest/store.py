"""Manifests in object storage: reading, creating and finding them, and checking that the files they name are there."""

from __future__ import annotations

from bisect import bisect
from contextlib import suppress

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import (
    Manifest,
    ParentRef,
    condemned_key,
    decode_as,
    hash_of,
    manifest_key,
    parse_key,
    shard_prefix,
)
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.segment.format import SegmentInfo


class ManifestStore:
    """The manifests in one bucket. Its methods raise Unavailable while the bucket is away."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def load(self, collection: str, shard: int, pointer: Pointer) -> Manifest:
        """The committed manifest, which the pointer names. Raises Corrupt when it is missing or another one."""
        key = manifest_key(collection, shard, pointer.version)
        data = await self._read(collection, shard, pointer.version)
        if data is None:
            raise Corrupt(f"manifest {key} is missing", key)
        if hash_of(data) != pointer.hash:
            raise Corrupt(f"manifest {key} is not the one that was committed", key)
        return decode_as(data, collection, shard, pointer.version)

    async def find(self, collection: str, shard: int, version: int) -> tuple[Manifest, Pointer] | None:
        """The manifest of this version with the pointer that would commit it; None when there is none. Raises Corrupt
        when it cannot be read.
        """
        data = await self._read(collection, shard, version)
        if data is None:
            return None
        manifest = decode_as(data, collection, shard, version)
        return manifest, Pointer(version=version, hash=hash_of(data), covers=manifest.covers)

    async def exists(self, collection: str, shard: int, version: int) -> bool:
        """Whether there is an object under the key of this version, readable or not."""
        return await self._read(collection, shard, version) is not None

    async def create(self, manifest: Manifest) -> Pointer | None:
        """Creates the manifest; its pointer, which is still to be committed, or None when the version exists already.
        Raises UnknownOutcome when it may have been created.
        """
        data = manifest.encode()
        if not await self._objects.create(manifest.key, data):
            return None
        return Pointer(version=manifest.version, hash=hash_of(data), covers=manifest.covers)

    async def newest(self, collection: str, shard: int) -> tuple[Manifest, Pointer] | None:
        """The newest manifest by what is in the bucket alone; None when the shard has none.

        The highest version of the latest epoch decides. An earlier epoch's manifest may have a higher version: its
        compactor slept through a restoration. Nor does the hash decide by which a manifest names its parent: a slow
        compactor may have taken the name of a version that was collected long ago. The versions between that manifest
        and its parent were given up by its writer. The writer may have been wrong, and then one of them was committed,
        and the log trimmed up to it. Every manifest of that epoch whose files are whole and that continues the same
        parent, directly or over others, is right about what it covers; so the one that covers the most loses nothing.
        Raises Corrupt when the highest version cannot be read: it may be the committed one.
        """
        keys = [info.key async for info in self._objects.list(f"{shard_prefix(collection, shard)}manifests/")]
        versions = sorted(parsed[2] for key in keys if (parsed := parse_key(key)))
        highest = await self.find(collection, shard, versions.pop()) if versions else None
        if highest is None:
            return None
        others: list[tuple[Manifest, Pointer]] = []
        for version in versions[bisect(versions, highest[0].parent.version if highest[0].parent else 0) :]:
            with suppress(Corrupt):
                other = await self.find(collection, shard, version)
                others += [other] if other is not None else []
        found = [*others, highest]
        latest = max(manifest.epoch for manifest, _ in found)
        *others, best = [each for each in found if each[0].epoch == latest]
        lineage = [best[0].parent]
        for other in others:
            if other[0].parent not in lineage:
                continue
            with suppress(Corrupt):
                for segment in other[0].segments:
                    await verify_present(self._objects, segment.info)
                lineage.append(ParentRef(other[1].version, other[1].hash))
                best = other if other[1].covers > best[1].covers else best
        return best

    async def _read(self, collection: str, shard: int, version: int) -> bytes | None:
        try:
            return await self._objects.get(manifest_key(collection, shard, version))
        except ObjectNotFound:
            return None


async def verify_present(objects: ObjectStore, info: SegmentInfo) -> None:
    """Raises Corrupt unless every file of the segment is in the bucket in full length, and not about to be deleted."""
    found = {entry.key: entry.bytes async for entry in objects.list(f"{info.path}/")}
    if condemned_key(info.path) in found:
        raise Corrupt(f"segment {info.id} was condemned as garbage")
    for file in info.files:
        if found.get(f"{info.path}/{file.name}") != file.bytes:
            raise Corrupt(f"segment {info.id}: {file.name} is missing or cut in the bucket", info.key(file.name))
