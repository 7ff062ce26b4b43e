"""Whether a stream is whole is told by its chain, inside the server: nothing is missing, nothing moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database
from shared.log.log import Log
from shared.redis.keys import Keys
from tests.shared.log.appending import append, make_collection

APPENDS = 70
"""More than a page of the script."""


@pytest.fixture
async def collection(catalog: Catalog, database: Database, log: Log) -> Collection:
    made = await make_collection(catalog, database)
    await asyncio.gather(*(append(log, made, [str(number)]) for number in range(APPENDS)))
    return made


async def test_a_stream_that_lost_nothing_is_whole_from_wherever_a_manifest_ends(
    collection: Collection, log: Log, redis: Redis, keys: Keys
) -> None:
    for covers in (1, 2, 64, 65, 66, APPENDS, APPENDS + 1, APPENDS + 50):
        assert await log.is_whole(collection.id, 0, covers)
    await redis.xtrim(keys.log(collection.id, 0), minid="50-0", approximate=False)
    assert await log.is_whole(collection.id, 0, 50)
    assert not await log.is_whole(collection.id, 0, 49)


async def test_a_stream_without_one_of_its_entries_is_not_whole(
    collection: Collection, log: Log, redis: Redis, keys: Keys
) -> None:
    stream = keys.log(collection.id, 0)
    for lost in (1, 63, 64, 65, APPENDS):
        await redis.copy(stream, f"{stream}:kept")
        await redis.xdel(stream, f"{lost}-0")
        assert not await log.is_whole(collection.id, 0, 1)
        assert await log.is_whole(collection.id, 0, lost + 1)
        await redis.rename(f"{stream}:kept", stream)


async def test_an_entry_with_another_number_is_noticed_and_another_payload_is_its_readers_business(
    collection: Collection, log: Log, redis: Redis, keys: Keys
) -> None:
    stream = keys.log(collection.id, 0)
    entries: Any = await redis.xrange(stream)
    changes: list[tuple[dict[bytes, bytes], bool]] = [
        ({}, True),
        ({b"d": b"something else"}, True),
        ({b"n": b"7"}, False),
        ({b"b": b"0" * 40}, False),
    ]
    for changed, whole in changes:
        await redis.delete(stream)
        async with redis.pipeline(transaction=False) as pipeline:
            for entry_id, fields in entries:
                pipeline.xadd(stream, fields | (changed if entry_id == b"66-0" else {}), entry_id)
            await pipeline.execute()
        assert await log.is_whole(collection.id, 0, 1) is whole
