"""Collections and appends for the tests of the log."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database, NewCollection
from shared.log.append import Appended, AppendRequest
from shared.log.batch import EncodedEntry, build_batch, decode_batch, split_batch
from shared.log.condition import Condition
from shared.log.log import Log
from shared.log.state import FIRST_ID, Entry
from shared.records.model import Op
from shared.redis.keys import Keys

FIXED = {"space": "l2", "shards": 1, "ef_construction": 100, "max_neighbors": 16}


async def make_collection(catalog: Catalog, database: Database, name: str = "numbers", shards: int = 1) -> Collection:
    new = NewCollection(name, None, {}, {}, {**FIXED, "shards": shards})
    made, created = await catalog.collections.create(database, new, get_or_create=False)
    assert created
    return made


async def make_cluster(redis: Redis, keys: Keys) -> tuple[Catalog, Database]:
    catalog = Catalog(redis, keys)
    await catalog.mark.open()
    await catalog.bootstrap()
    database = await catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    return catalog, database


async def eventually(holds: Callable[[], Awaitable[object]], deadline_s: float = 20.0) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(deadline_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.005)


async def append(
    log: Log,
    collection: Collection,
    ids: Sequence[str],
    *,
    request_id: str | None = None,
    dimension: int = 2,
    generation: int | None = None,
) -> Appended:
    """Upserts records with these ids and zero vectors."""
    batch = build_batch(Op.UPSERT, ids, np.zeros((len(ids), dimension), dtype=np.float32))
    parts = split_batch(batch, collection.layout)
    return await append_batches(
        log, collection, parts, request_id=request_id, dimension=dimension, generation=generation
    )


async def append_batches(
    log: Log,
    collection: Collection,
    batches: Mapping[int, Sequence[EncodedEntry]],
    *,
    request_id: str | None = None,
    dimension: int | None = None,
    generation: int | None = None,
    new_keys: Sequence[tuple[str, str]] = (),
    condition: Condition | None = None,
) -> Appended:
    """Appends entries as they are, under a request id of their own unless one is given."""
    request = AppendRequest(
        collection_id=collection.id,
        request_id=request_id or uuid.uuid4().hex,
        batches=batches,
        dimension=dimension,
        generation=generation,
        new_keys=new_keys,
        condition=condition,
    )
    return await log.append(request)


def ids_of(entries: Sequence[Entry]) -> dict[int, str]:
    """Position -> id of every operation in the entries."""
    found: dict[int, str] = {}
    for entry in entries:
        batch = decode_batch(entry.payload)
        for offset, record_id in zip(batch["offset"].to_pylist(), batch["id"].to_pylist(), strict=True):
            assert entry.first + offset not in found
            found[entry.first + offset] = record_id
    return found


async def everything(log: Log, collection: Collection) -> dict[int, str]:
    """Position -> id over all shards, chains checked from their beginning."""
    found: dict[int, str] = {}
    for shard in collection.layout.numbers:
        read = await log.read(collection.id, shard)
        assert not read.entries or read.entries[0].previous == FIRST_ID
        assert read.state.tail == (read.entries[-1].id if read.entries else FIRST_ID)
        found.update(ids_of(read.entries))
    return found
