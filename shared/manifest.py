"""Manifests: the immutable roots that say what a shard is.

    <collection>/<shard>/manifests/<version, 20 digits>.json      JSON, created once, never replaced
    <collection>/<shard>/segments/<segment id>/<file>             named by manifests through their full path

A manifest's *hash* is the xxh3-128 of its bytes, in hex. A *pointer* (version, hash, covers) in Redis names the
committed one.

Invariants
1. A manifest names the committed one that it continues, by version and hash; the first has no parent. So the newest
   one proves the whole chain. Usually the parent is the version before; versions in between were given up.
2. A manifest exists only after every file it names does.
3. It is committed when it exists *and* the pointer names it. Between the two, its compactor may die: whoever finds it
   completes it (`settle`), and nobody can publish another manifest of that version, because the name is taken. One
   that must not be completed (it cannot be read, its files are missing, it continues another one) is given up: the
   next version is taken. Whoever is wrong about that loses the commit, since only one can move the pointer from the
   parent that both have.
4. `covers` (exclusive) never shrinks along the chain: the manifest is the effect of every operation of the shard before
   it.
5. `digest` is the sum of `shared.digest` over the live records, `rows` their number.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import xxhash
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.segment.format import SegmentInfo
from shared.telemetry import get_logger

log = get_logger(__name__)

FORMAT: Final = 1
CONDEMNED: Final = "condemned"
_KEY: Final = re.compile(r"(?P<collection>[^/]+)/(?P<shard>\d+)/manifests/(?P<version>\d{20})\.json", re.ASCII)

Commit = Callable[[str, int, Pointer | None, Pointer], Awaitable[bool]]
"""`Log.commit`: moves the pointer of (collection, shard) from the first to the second; whether it did."""


class ParentRef(msgspec.Struct, frozen=True):
    """The manifest before this one."""

    version: int
    hash: str


class SegmentRef(msgspec.Struct, frozen=True):
    """A segment and which of its rows are dead: a serialised roaring bitmap in base64, and how many it holds."""

    info: SegmentInfo
    tombstones: str
    dead: int

    @staticmethod
    def of(info: SegmentInfo, dead: BitMap) -> SegmentRef:
        return SegmentRef(info=info, tombstones=base64.b64encode(dead.serialize()).decode(), dead=len(dead))

    def bitmap(self) -> BitMap:
        """The dead rows; Corrupt when they are not what the manifest says."""
        try:
            found: BitMap = BitMap.deserialize(base64.b64decode(self.tombstones, validate=True))
        except ValueError as error:
            raise Corrupt(f"the tombstones of segment {self.info.id} cannot be read: {error}") from error
        if len(found) != self.dead or (found and found.max() >= self.info.rows):
            raise Corrupt(f"the tombstones of segment {self.info.id} do not fit it")
        return found

    @property
    def live(self) -> int:
        return self.info.rows - self.dead


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one shard at one position. `dimension` is 0 while the collection has none (then there are no
    segments). `digest` is 32 hex digits. `created_s` is the writer's clock: shown, never compared.
    """

    format: int = FORMAT
    collection: str
    shard: int
    version: int
    parent: ParentRef | None
    covers: int
    dimension: int
    segments: list[SegmentRef]
    rows: int
    digest: str
    written_by: str
    created_s: float

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @property
    def key(self) -> str:
        return manifest_key(self.collection, self.shard, self.version)

    def pointer(self) -> Pointer:
        """What Redis says when this manifest is the committed one."""
        return Pointer(version=self.version, hash=hash_of(self.encode()), covers=self.covers)


def hash_of(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def shard_prefix(collection: str, shard: int) -> str:
    return f"{collection}/{shard}/"


def manifest_key(collection: str, shard: int, version: int) -> str:
    return f"{shard_prefix(collection, shard)}manifests/{version:020d}.json"


def segment_path(collection: str, shard: int, segment: str) -> str:
    """The key prefix of a new segment's files, without the last slash."""
    return f"{shard_prefix(collection, shard)}segments/{segment}"


def parse_key(key: str) -> tuple[str, int, int] | None:
    """(collection, shard, version) of a manifest's key; None for any other key."""
    found = _KEY.fullmatch(key)
    return (found["collection"], int(found["shard"]), int(found["version"])) if found else None


def decode(data: bytes) -> Manifest:
    """A manifest from its bytes; Corrupt when they are not one."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise Corrupt(f"a manifest of format {manifest.format}; this build reads {FORMAT}")
    if (manifest.parent.version if manifest.parent else 0) >= manifest.version:
        raise Corrupt(f"manifest {manifest.key} names a parent that is no version before it")
    if sum(segment.live for segment in manifest.segments) != manifest.rows:
        raise Corrupt(f"manifest {manifest.key} does not have the rows it says")
    return manifest


class ManifestStore:
    """Manifests in object storage."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def load(self, collection: str, shard: int, pointer: Pointer) -> Manifest:
        """The manifest that the pointer names; Corrupt when it is missing or is not that one."""
        data = await self._read(collection, shard, pointer.version)
        if data is None:
            raise Corrupt(f"manifest {manifest_key(collection, shard, pointer.version)} is missing")
        if hash_of(data) != pointer.hash:
            raise Corrupt(
                f"manifest {manifest_key(collection, shard, pointer.version)} is not the one that was committed"
            )
        return _checked(data, collection, shard, pointer.version)

    async def find(self, collection: str, shard: int, version: int) -> tuple[Manifest, Pointer] | None:
        """The manifest of this version with the pointer that would commit it; None when there is none."""
        data = await self._read(collection, shard, version)
        if data is None:
            return None
        manifest = _checked(data, collection, shard, version)
        return manifest, Pointer(version=version, hash=hash_of(data), covers=manifest.covers)

    async def exists(self, collection: str, shard: int, version: int) -> bool:
        return await self._read(collection, shard, version) is not None

    async def create(self, manifest: Manifest) -> Pointer | None:
        """Creates the manifest: its pointer, yet to be committed, or None when the version exists already."""
        data = manifest.encode()
        if not await self._objects.create(manifest.key, data):
            return None
        return Pointer(version=manifest.version, hash=hash_of(data), covers=manifest.covers)

    async def newest(self, collection: str, shard: int) -> tuple[Manifest, Pointer] | None:
        """The newest manifest that the bucket alone knows of; None when the shard has none.

        Its version decides, not the hash by which it names its parent: a slow compactor may have taken the name of a
        version that was collected long ago. Versions between it and its parent were given up by its author, who may
        have been wrong, and then one of them was committed, and the log trimmed up to it. Every whole one that
        continues the same parent, at once or over others, is right about what it covers; so the one that covers the
        most loses nothing. Raises Corrupt when the newest version cannot be read: it may be the committed one.
        """
        keys = [info.key async for info in self._objects.list(f"{shard_prefix(collection, shard)}manifests/")]
        versions = sorted(parsed[2] for key in keys if (parsed := parse_key(key)))
        best = await self.find(collection, shard, versions.pop()) if versions else None
        if best is None:
            return None
        lineage = [best[0].parent]
        for version in versions[bisect(versions, best[0].parent.version if best[0].parent else 0) :]:
            with suppress(Corrupt):
                other = await self.find(collection, shard, version)
                if other is None or other[0].parent not in lineage:
                    continue
                for segment in other[0].segments:
                    await verify_present(self._objects, segment.info)
                lineage.append(ParentRef(version, other[1].hash))
                best = other if other[1].covers > best[1].covers else best
        return best

    async def _read(self, collection: str, shard: int, version: int) -> bytes | None:
        try:
            return await self._objects.get(manifest_key(collection, shard, version))
        except ObjectNotFound:
            return None


def _checked(data: bytes, collection: str, shard: int, version: int) -> Manifest:
    manifest = decode(data)
    if (manifest.collection, manifest.shard, manifest.version) != (collection, shard, version):
        raise Corrupt(f"{manifest_key(collection, shard, version)} holds {manifest.key}")
    return manifest


async def settle(
    objects: ObjectStore, commit: Commit, collection: str, shard: int, current: Pointer | None
) -> Pointer | int | None:
    """Finishes or gives up what dead compactors left after `current`.

    Returns the pointer that is now committed; or the version that the next manifest takes, when there is nothing to
    complete; or None when the pointer has moved on meanwhile.
    """
    version = current.version + 1 if current else 1
    while await ManifestStore(objects).exists(collection, shard, version):
        try:
            return await complete(objects, commit, collection, shard, current, version)
        except Corrupt as error:
            log.error("manifest_given_up", collection=collection, shard=shard, version=version, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
        version += 1
    return version


async def complete(
    objects: ObjectStore, commit: Commit, collection: str, shard: int, current: Pointer | None, version: int
) -> Pointer | None:
    """Commits a manifest that exists and was never pointed to.

    1. Read it: its parent must be `current` itself, hash and all.
    2. Every file of the segments that it adds must be there in full length (their checksums are verified by whoever
       loads them).
    3. Commit it.

    Returns the pointer that is now committed, or None when there is nothing to complete (no such manifest, or the
    pointer has moved on meanwhile: the finder's knowledge was old). Raises Corrupt when the manifest must not be
    committed.
    """
    found = await ManifestStore(objects).find(collection, shard, version)
    if found is None:
        return None
    manifest, pointer = found
    parent = (manifest.parent.version, manifest.parent.hash) if manifest.parent else None
    if parent != ((current.version, current.hash) if current else None):
        raise Corrupt(f"manifest {manifest.key} exists and does not continue the committed one")
    if current is not None and manifest.covers < current.covers:
        raise Corrupt(f"manifest {manifest.key} covers less than the one before it")
    for segment in manifest.segments:
        await verify_present(objects, segment.info)
    return pointer if await commit(collection, shard, current, pointer) else None


def condemned_key(path: str) -> str:
    """The mark that the collector of garbage leaves beside a segment's files a round before it deletes them."""
    return f"{path}/{CONDEMNED}"


async def verify_present(objects: ObjectStore, info: SegmentInfo) -> None:
    """Corrupt unless every file of the segment is in the bucket in full length, and not about to be deleted."""
    found = {entry.key: entry.bytes async for entry in objects.list(f"{info.path}/")}
    if condemned_key(info.path) in found:
        raise Corrupt(f"segment {info.id} was condemned as garbage")
    for file in info.files:
        if found.get(f"{info.path}/{file.name}") != file.bytes:
            raise Corrupt(f"segment {info.id}: {file.name} is missing or cut in the bucket")
