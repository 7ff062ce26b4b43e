"""Manifests in object storage: reading, creating and finding them, and checking that the files they name are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import Manifest, decode_as, hash_of
from shared.objects.keys import condemned_key, manifest_key, manifests_prefix, parse_manifest_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.segment.format import RECORDS, FileInfo, SegmentInfo


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

    async def parent(self, manifest: Manifest) -> tuple[Manifest, Pointer] | None:
        """The manifest that this one continues, with its pointer; None when it has none, or that is gone: its name may
        have been taken since by a slow compactor. Raises Corrupt when it cannot be read.
        """
        if manifest.parent is None:
            return None
        found = await self.find(manifest.collection, manifest.shard, manifest.parent.version)
        return found if found and found[1].hash == manifest.parent.hash else None

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

    async def versions(self, collection: str, shard: int) -> list[int]:
        """The versions of the manifests in the bucket, committed or not, ascending."""
        keys = [info.key async for info in self._objects.list(manifests_prefix(collection, shard))]
        return sorted(parsed[2] for key in keys if (parsed := parse_manifest_key(key)))

    async def _read(self, collection: str, shard: int, version: int) -> bytes | None:
        try:
            return await self._objects.get(manifest_key(collection, shard, version))
        except ObjectNotFound:
            return None


async def verify_present(objects: ObjectStore, info: SegmentInfo) -> None:
    """Raises Corrupt unless every file of the segment is in the bucket in full length, and not about to be deleted."""
    found = await _sizes(objects, info)
    if condemned_key(info.path) in found:
        raise Corrupt(f"segment {info.id} was condemned as garbage")
    _verify_sizes(info, info.files, found)


async def verify_records_present(objects: ObjectStore, info: SegmentInfo) -> None:
    """Raises Corrupt unless the records of the segment are in the bucket in full length. Its other files can be made
    again, and a mark of the garbage collection goes when it sees that the segment is named.
    """
    _verify_sizes(info, [file for file in info.files if file.name == RECORDS], await _sizes(objects, info))


async def _sizes(objects: ObjectStore, info: SegmentInfo) -> dict[str, int]:
    """The files of the segment that the bucket has, and marks beside them: the bytes of each, by its key."""
    return {entry.key: entry.bytes async for entry in objects.list(f"{info.path}/")}


def _verify_sizes(info: SegmentInfo, files: Iterable[FileInfo], found: Mapping[str, int]) -> None:
    for file in files:
        key = info.key(file.name)
        if found.get(key) != file.bytes:
            raise Corrupt(f"segment {info.id}: {file.name} is missing or cut in the bucket", key)
