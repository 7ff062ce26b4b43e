"""Proving a bucket: one listing, collection by collection, never more than a few collections' manifests in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from polychrome.verify.catalog_objects import prove_journal, prove_roots, prove_snapshots
from polychrome.verify.model import Ledger
from polychrome.verify.shard import ShardPlace, ShardProver
from shared.errors import Corrupt, Gone
from shared.log.state import Pointer
from shared.objects.keys import (
    AUDIT,
    CATALOG,
    COMMITS,
    CONTROL,
    ERASURES,
    PROBES,
    USAGE,
    parse_journal_key,
    parse_root_key,
    parse_shard_key,
    parse_snapshot_key,
)
from shared.objects.port import ObjectInfo, ObjectStore
from shared.segment.format import RECORDS

COLLECTIONS_AT_ONCE: Final = 4
_OWN: Final = (AUDIT, CATALOG, COMMITS, CONTROL, ERASURES, PROBES, USAGE)
"""Prefixes of objects without content that counts."""

PointerOf = Callable[[str, int], Awaitable[Pointer | None]]
"""The pointer of a shard as Redis has it now, None where nothing was committed. Raises Gone for a collection that was
deleted, whose objects are garbage, KeyError for one that the catalog does not have, and Corrupt when its state cannot
be read.
"""


@dataclass(slots=True)
class _Collection:
    """The objects of one collection, as far as the listing tells: its shards, the keys of its roots, all others."""

    id: str
    shards: set[int] = field(default_factory=set)
    roots: list[str] = field(default_factory=list)
    others: list[ObjectInfo] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0


class Sample:
    """A choice of segments by their paths: the same for the same seed. `share` of them are chosen, 1.0 for all."""

    def __init__(self, share: float, seed: int = 0) -> None:
        self.share = share
        self._seed = seed

    def __call__(self, path: str) -> bool:
        return self.share >= 1.0 or xxhash.xxh3_64_intdigest(path.encode(), self._seed) < self.share * 2**64


async def share_of(objects: ObjectStore, number: int) -> float:
    """The share of the bucket's segments that makes about `number` of them. Raises Unavailable."""
    segments = 0
    async for info in objects.list(""):
        segments += info.key.endswith(f"/{RECORDS}")
    return min(1.0, number / max(1, segments))


class BucketProver:
    """Proves everything in a bucket. `pointer_of` asks Redis, where there is one."""

    def __init__(
        self, objects: ObjectStore, scratch: Path, ledger: Ledger, sample: Sample, pointer_of: PointerOf | None
    ) -> None:
        self._objects = objects
        self._ledger = ledger
        self._pointer_of = pointer_of
        self._shards = ShardProver(objects, scratch, ledger, sample)
        self._snapshots: list[str] = []
        self._journal: list[str] = []

    async def prove(self) -> None:
        """Notes in the ledger what is wrong. Raises Unavailable."""
        free = asyncio.Semaphore(COLLECTIONS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            async for collection in self._collections():
                await free.acquire()
                task = group.create_task(self._prove_collection(collection))
                task.add_done_callback(lambda _: free.release())
        await prove_snapshots(self._objects, self._snapshots, self._ledger)
        await prove_journal(self._objects, self._journal, self._ledger)

    async def _collections(self) -> AsyncIterator[_Collection]:
        """The collections of the bucket, one after the other, as the listing comes to their end."""
        current: _Collection | None = None
        async for info in self._objects.list(""):
            self._ledger.counts["objects"] += 1
            first = info.key.partition("/")[0]
            if current is not None and current.id != first:
                yield current
                current = None
            if parse_snapshot_key(info.key) is not None:
                self._snapshots.append(info.key)
            elif parse_journal_key(info.key) is not None:
                self._journal.append(info.key)
            elif info.key.startswith(_OWN):
                continue
            else:
                current = current or _Collection(first)
                _sort(current, info)
        if current is not None:
            yield current

    async def _prove_collection(self, collection: _Collection) -> None:
        try:
            if self._pointer_of is not None:
                await self._pointer_of(collection.id, 0)
        except Corrupt:
            pass  # which `ClusterProver` says; its shards are proved as without Redis
        except Gone:
            return  # its objects are garbage, and being collected
        except KeyError:
            self._ledger.orphan(collection.id, collection.objects, collection.bytes)
            return
        self._ledger.counts["collections"] += 1
        for info in collection.others:
            self._ledger.orphan(info.key, 1, info.bytes)
        root = await prove_roots(self._objects, collection.roots, collection.id, self._ledger)
        rooted = {manifest.shard: {manifest.version: manifest.hash} for manifest in root.manifests} if root else {}
        for shard in sorted(collection.shards | rooted.keys()):
            try:
                asked = await self._asked(collection.id, shard)
                await self._shards.prove(ShardPlace(collection.id, shard, asked, rooted.get(shard, {})))
            except (Gone, KeyError):
                return  # it was deleted meanwhile

    async def _asked(self, collection: str, shard: int) -> Callable[[], Awaitable[Pointer | None]] | None:
        """Asks for the pointer of a shard; None where Redis cannot tell. Raises as `PointerOf`, but for Corrupt."""
        pointer_of = self._pointer_of
        if pointer_of is None:
            return None
        try:
            await pointer_of(collection, shard)
        except Corrupt:
            return None
        return lambda: pointer_of(collection, shard)


def _sort(collection: _Collection, info: ObjectInfo) -> None:
    """Adds an object of the collection to it."""
    collection.objects += 1
    collection.bytes += info.bytes
    of_shard = parse_shard_key(info.key)
    if of_shard is not None:
        collection.shards.add(of_shard.shard)
    elif parse_root_key(info.key) is not None:
        collection.roots.append(info.key)
    else:
        collection.others.append(info)
