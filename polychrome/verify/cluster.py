"""Proving what Redis holds: the state of every collection in the catalog, its pointers, every entry of its streams.

What is written, compacted and deleted meanwhile is looked at once more before it counts as damage: streams are read
together with the state that they must fit, in one step of the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec
import orjson
from redis.asyncio import Redis

from polychrome.verify.model import Finding, Ledger
from shared.catalog import Catalog
from shared.catalog.damage import DamageKind
from shared.errors import Corrupt, Gone
from shared.log.batch import decode_batch
from shared.log.log import Log
from shared.log.naming import entry_name, state_name, stream_name
from shared.log.state import FIRST_ID, Entry, Pointer, ShardState, position_of
from shared.log.verification import DamagedEntry, RawEntry, check_follows, verified_entry
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

PAGE: Final = 64
"""Entries of a stream that are read at a time."""
TRIES: Final = 3
"""Times that a stream is read which does not fit its state: it was trimmed or written meanwhile."""


class ClusterProver:
    """Proves what the Redis of a cluster holds, against itself and against the bucket."""

    def __init__(self, redis: Redis, keys: Keys, objects: ObjectStore, ledger: Ledger) -> None:
        self._redis = redis
        self._keys = keys
        self._catalog = Catalog(redis, keys)
        self._log = Log(redis, keys)
        self._manifests = ManifestStore(objects)
        self._ledger = ledger
        self._listed: set[str] = set()

    async def read_catalog(self) -> None:
        """Reads the rows of all collections: what `pointer_of` knows. Raises Unavailable."""
        async for database in self._catalog.databases.all():
            async for collection_id, row in self._rows(database.key):
                self._listed.add(collection_id)
                self._ledger.counts["rows"] += 1
                if not _is_row(row):
                    name = f"{collection_id}/row"
                    self._ledger.add([Finding.of(name, "is no row of a collection", collection=collection_id)])

    async def pointer_of(self, collection: str, shard: int) -> Pointer | None:
        """The pointer of a shard as it is now. Raises Gone, Unavailable, and KeyError for a collection that the catalog
        does not have, and did not have at the beginning.
        """
        [state] = await self._log.states([(collection, shard)])
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
            [state] = await self._log.states([(collection, 0)])
        except (Corrupt, ValueError, orjson.JSONDecodeError) as error:
            self._ledger.add([Finding.of(state_name(collection), f"cannot be read: {error}", collection=collection)])
            return
        if state is None:
            self._ledger.add([Finding.of(state_name(collection), "is missing", collection=collection)])
            return
        if state.deleted:
            return
        self._ledger.counts["states"] += 1
        layouts = [state.routing.layout, *([state.routing.next] if state.routing.next else [])]
        for number in (number for layout in layouts for number in layout.numbers):
            await self._prove_pointer(collection, number)
            await self._prove_stream(collection, number)

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

    # ---- streams

    async def _prove_stream(self, collection: str, shard: int) -> None:
        for attempt in range(TRIES):
            entries, found = await self._look(collection, shard)
            if not found or attempt + 1 == TRIES:
                self._ledger.counts["entries"] += entries
                self._ledger.add(found)
                return

    async def _look(self, collection: str, shard: int) -> tuple[int, list[Finding]]:
        """How many entries the stream has, and what is wrong with it as far as its newest entry of the beginning."""
        [state] = await self._log.states([(collection, shard)])
        if state is None or state.deleted:
            raise Gone(f"collection {collection} was deleted")
        found: list[Finding] = []
        entries, before, last_id, follows_damage = 0, None, FIRST_ID, False
        async for raw in self._entries(collection, shard, state.tail):
            entries += 1
            entry = self._checked(collection, shard, raw, None if follows_damage else before, state, found)
            follows_damage = entry is None
            before, last_id = entry or before, raw[0].decode()
        covered = state.pointer.covers if state.pointer else 1
        if last_id != state.tail and position_of(state.tail) >= max(covered, state.trimmed):
            what = f"ends at {last_id}, but {state.tail} was written"
            found.append(Finding.of(stream_name(collection, shard), what, collection=collection, shard=shard))
        elif before is not None and not follows_damage and state.chain and before.chain not in ("", state.chain):
            what = f"the state has another chain than {before.id}"
            found.append(Finding.of(stream_name(collection, shard), what, collection=collection, shard=shard))
        return entries, found

    async def _entries(self, collection: str, shard: int, tail: str) -> AsyncIterator[RawEntry]:
        """The entries of a stream up to the id `tail`, as they are stored."""
        start = "-"
        while True:
            call = ("XRANGE", self._keys.log(collection, shard), start, tail, "COUNT", PAGE)
            page: Sequence[Any] = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc]  # no type for a lambda with a default
            for id_, fields in page:
                pairs = list(fields) if isinstance(fields, list) else [part for pair in fields.items() for part in pair]
                self._ledger.read(sum(map(len, pairs)))
                yield id_, pairs
            if len(page) < PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def _checked(
        self,
        collection: str,
        shard: int,
        raw: RawEntry,
        before: Entry | None,
        state: ShardState,
        found: list[Finding],
    ) -> Entry | None:
        """The entry; None when it is damaged, which is noted. `before` is the entry before, if that can be compared."""
        covered = state.pointer.covers if state.pointer else 1
        kept_from = max(covered, state.trimmed)
        try:
            entry = verified_entry(collection, shard, raw)
            if before is not None:
                check_follows(collection, shard, before, entry)
            elif not found and entry.previous != FIRST_ID and position_of(entry.previous) >= kept_from:
                missing = DamagedEntry(collection, shard, entry.previous, f"it is missing before {entry.id}")
                found.append(_of_entry(missing, covered))
            decode_batch(entry.payload)
        except DamagedEntry as error:
            found.append(_of_entry(error, covered))
            return None if error.entry_id == raw[0].decode() else verified_entry(collection, shard, raw)
        except Corrupt as error:
            name = entry_name(collection, shard, raw[0].decode())
            found.append(Finding.of(name, error.message, collection=collection, shard=shard))
            return None
        return entry


def _of_entry(error: DamagedEntry, covered: int) -> Finding:
    """The finding for a damaged entry. One that a manifest covers is needed no more."""
    current = error.end is None or error.end > covered
    return Finding(
        error.name, DamageKind.ENTRY, error.reason, current, error.collection_id, error.shard,
        positions=(error.first, error.end),
    )  # fmt: skip


def _is_row(row: bytes) -> bool:
    try:
        return "name" in orjson.loads(row)
    except (orjson.JSONDecodeError, TypeError):
        return False
