"""Proving what Redis holds: the state of every collection in the catalog, its pointers, every entry of its streams.

What is written, compacted and deleted meanwhile is looked at once more before it counts as damage.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from redis.asyncio import Redis

from polychrome.verify.model import CollectionNames, Finding, Ledger, name_in
from polychrome.verify.streams import StreamProver
from shared.catalog import Catalog
from shared.errors import Corrupt, Gone
from shared.log.log import Log
from shared.log.naming import state_name
from shared.log.state import Pointer, ShardState, position_of
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.records.indexing import Indexing
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.vectors.space import Space

TRIES: Final = 3
"""Times that a pointer is compared with its manifest: both may have changed meanwhile."""


class ClusterProver:
    """Proves what the Redis of a cluster holds, against itself and against the bucket."""

    def __init__(self, redis: Redis, keys: Keys, objects: ObjectStore, ledger: Ledger) -> None:
        self._redis = redis
        self._keys = keys
        self._catalog = Catalog(redis, keys)
        self._log = Log(redis, keys)
        self._manifests = ManifestStore(objects)
        self._ledger = ledger
        self._streams = StreamProver(redis, keys, ledger.read)
        self._listed: set[str] = set()

    async def read_catalog(self) -> None:
        """Reads the rows of all collections: what `pointer_of` knows. Raises Unavailable."""
        async for database in self._catalog.databases.all():
            names: dict[str, CollectionNames] = {}
            async for collection_id, row in self._rows(database.key):
                self._listed.add(collection_id)
                self._ledger.counts["rows"] += 1
                name = name_in(row)
                if name is None:
                    finding = Finding.of(f"{collection_id}/row", "is no row of a collection", collection=collection_id)
                    self._ledger.add([finding])
                else:
                    names[collection_id] = CollectionNames(database.tenant, database.name, name)
            self._ledger.call(names)

    async def pointer_of(self, collection: str, shard: int) -> Pointer | None:
        """The pointer of a shard as it is now. Raises Gone, Unavailable, Corrupt when the state cannot be read, and
        KeyError for a collection that the catalog does not have, and did not have at the beginning.
        """
        state = await self._state(collection, shard)
        if state is not None and state.deleted:
            raise Gone(f"collection {collection} was deleted")
        if state is None and collection not in self._listed:
            raise KeyError(collection)
        return None if state is None else state.pointer

    async def prove(self) -> None:
        """Notes in the ledger what is wrong. Raises Unavailable."""
        for collection in sorted(self._listed):
            try:
                await self._prove_collection(collection)
            except Gone:
                continue

    async def _rows(self, database_key: str) -> AsyncIterator[tuple[str, bytes]]:
        cursor = 0
        while True:
            call = ("HSCAN", self._keys.rows(database_key), cursor, "COUNT", 500)
            answer = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc]  # no type for a lambda with a default
            cursor, rows = answer
            for collection_id, row in rows.items():
                yield collection_id.decode(), row
            if not int(cursor):
                return

    async def _prove_collection(self, collection: str) -> None:
        try:
            state = await self._state(collection, 0)
            if state is None:
                self._ledger.add([Finding.of(state_name(collection), "is missing", collection=collection)])
            if state is None or state.deleted:
                return
            self._ledger.counts["states"] += 1
            layouts = [state.routing.layout, *([state.routing.next] if state.routing.next else [])]
            for number in (number for layout in layouts for number in layout.numbers):
                await self._prove_shard(collection, number)
        except Corrupt as error:
            self._ledger.add([Finding.of(error.name, error.message, collection=collection)])

    async def _prove_shard(self, collection: str, shard: int) -> None:
        """Raises Corrupt when its part of the state cannot be read, or contradicts itself."""
        state = await self._state(collection, shard)
        if state is None:
            raise Gone(f"collection {collection} was deleted")
        reached = max(position_of(state.tail) + 1, state.pointer.covers if state.pointer else 0)
        if reached > state.head:
            what = f"says that the next position is {state.head}; shard {shard} has been written up to {reached}"
            raise Corrupt(what, state_name(collection))
        await self._prove_pointer(collection, shard)
        proof = await self._streams.prove(collection, shard)
        self._ledger.counts["entries"] += proof.entries
        self._ledger.add(proof.findings)

    async def _state(self, collection: str, shard: int) -> ShardState | None:
        """The state of a shard, None where there is none. Raises Corrupt when it cannot be read."""
        try:
            [state] = await self._log.states([(collection, shard)])
            if state is not None:
                _check(state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # by any of its numbers, layouts, JSON texts
            raise Corrupt(f"cannot be read: {error!r}", state_name(collection)) from error
        return state

    async def _prove_pointer(self, collection: str, shard: int) -> None:
        """The committed manifest must be there. Of a shard that has nothing in the bucket, the listing says nothing."""
        found = None
        for _ in range(TRIES):
            [state] = await self._log.states([(collection, shard)])
            if state is None or state.pointer is None:
                return
            found = await self._wrong_pointer(collection, shard, state.pointer)
            if found is None:
                self._ledger.counts["pointers"] += 1
                return
        self._ledger.add([found] if found else [])

    async def _wrong_pointer(self, collection: str, shard: int, pointer: Pointer) -> Finding | None:
        try:
            manifest = await self._manifests.load(collection, shard, pointer)
        except Corrupt as error:
            found = Finding.of(error.name, error.message, collection=collection, shard=shard)
            return msgspec.structs.replace(found, checksum=pointer.hash)
        if manifest.covers == pointer.covers:
            return None
        what = f"the pointer of shard {shard} says that {manifest.key} covers {pointer.covers}, not {manifest.covers}"
        return Finding.of(state_name(collection), what, collection=collection, shard=shard)


def _check(state: ShardState) -> None:
    """Raises ValueError or KeyError unless the newest entry has an id, and what never changes of the collection says
    how segments are built.
    """
    if not re.fullmatch(r"\d+-\d+", state.tail):
        raise ValueError(f"{state.tail!r} is no id of an entry")
    Space(state.fixed["space"])
    for name in ("ef_construction", "max_neighbors"):
        int(state.fixed[name])
    Indexing.of(state.fixed)
