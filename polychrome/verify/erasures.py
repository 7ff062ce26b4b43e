"""Proving the receipts of erasures, from the bucket and Redis alone.

A receipt says what was removed. Proved is that its checksum holds, that no segment which it names is there but those
that it says forks have, that of collections which were erased as wholes nothing is there and no copy of the catalog is
as old as they are, that logs begin behind its barriers, and that no segment or log of the collection has a record whose
id was erased, unless it was written again later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from redis.asyncio import Redis

from polychrome.verify.model import Finding, Ledger
from shared.errors import Corrupt
from shared.log.layouts import read_layouts
from shared.objects.keys import (
    ERASURES,
    SNAPSHOTS,
    parse_log_key,
    parse_root_key,
    parse_segment_file_key,
    parse_snapshot_key,
)
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.segment.format import RECORDS
from shared.tenancy.erasures import Receipt, decode_receipt

THERE: Final = "is there, and a receipt says that it was erased"


class ReceiptProver:
    """Proves all receipts in a bucket. `redis` is None for a bucket alone. Raises Unavailable."""

    def __init__(self, objects: ObjectStore, redis: Redis | None, keys: Keys, scratch: Path, ledger: Ledger) -> None:
        self._objects = objects
        self._redis = redis
        self._keys = keys
        self._scratch = scratch
        self._ledger = ledger

    async def prove(self) -> None:
        """Notes in the ledger what contradicts a receipt."""
        keys = [info.key async for info in self._objects.list(ERASURES)]
        for key in keys:
            self._ledger.counts["receipts"] += 1
            try:
                receipt = decode_receipt(await self._objects.get(key), key)
            except Corrupt as error:
                self._ledger.add([Finding.of(key, error.message)])
                continue
            await self._prove(receipt)

    async def _prove(self, receipt: Receipt) -> None:
        left = {each.what for each in receipt.remaining}
        for removed in receipt.removed:
            collection, barrier = removed.collection, receipt.barriers.get(removed.collection)
            found = [info.key async for info in self._objects.list(f"{collection}/")]
            segments = {*removed.segments}
            for key in found:
                path = parse_segment_file_key(key)
                if path in left:
                    continue
                if barrier is None or path in segments or _is_before(key, barrier):
                    self._note(key, collection)
                elif path is not None and key.endswith(f"/{RECORDS}") and receipt.records:
                    await self._prove_records(key, collection, barrier, receipt.records)
            if barrier is not None:
                await self._prove_logs(collection, barrier)
            elif self._redis is not None and await self._exists(collection):
                self._note(f"{collection}/state", collection)
        await self._prove_copies(receipt.snapshot)

    async def _prove_records(self, key: str, collection: str, barrier: int, erased: Sequence[str]) -> None:
        """Notes a file of records that has one which was erased. One that was written later has another position."""
        path = self._scratch / "erased.arrow"
        try:
            await self._objects.download(key, path)
            self._ledger.read(path.stat().st_size)
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
                ids, inserted = batch.column("id").to_pylist(), batch.column("inserted").to_pylist()
        except (ObjectNotFound, OSError, pa.ArrowException):
            return  # it is proved, and damage noted, with its segment
        finally:
            path.unlink(missing_ok=True)
        hashes = frozenset(erased)
        for record_id, position in zip(ids, inserted, strict=True):
            if position < barrier and hashlib.sha256(record_id.encode()).hexdigest() in hashes:
                self._ledger.add([Finding.of(key, "has a record that was erased", collection=collection)])

    async def _prove_logs(self, collection: str, barrier: int) -> None:
        """Notes a stream in Redis that begins before the barrier."""
        redis = self._redis
        if redis is None:
            return
        layouts = await read_layouts(redis, self._keys, [collection])
        for shard in layouts[collection].layout.numbers if collection in layouts else ():
            call = ("XRANGE", self._keys.log(collection, shard), "-", f"({barrier}-0", "COUNT", 1)
            found = await retry_idempotent(lambda call=call: command(redis, *call), writes=False)  # type: ignore[misc]  # no type for a lambda with a default
            if found:
                self._ledger.add([Finding.of(f"{collection}/{shard}/log", THERE, collection=collection, shard=shard)])

    async def _exists(self, collection: str) -> bool:
        assert self._redis is not None
        redis, key = self._redis, self._keys.state(collection)
        return bool(await retry_idempotent(lambda: command(redis, "EXISTS", key), writes=False))

    async def _prove_copies(self, first: int) -> None:
        """Notes snapshots of the catalog that are older than the first one without what was erased."""
        if not first:
            return
        async for info in self._objects.list(SNAPSHOTS):
            number = parse_snapshot_key(info.key)
            if number is not None and number < first:
                self._note(info.key, "")

    def _note(self, key: str, collection: str) -> None:
        self._ledger.add([Finding.of(key, THERE, collection=collection)])


def _is_before(key: str, barrier: int) -> bool:
    """Whether the object is a root or sealed log from before the barrier."""
    if (root := parse_root_key(key)) is not None:
        return root[2] < barrier
    sealed = parse_log_key(key)
    return sealed is not None and sealed.first < barrier
